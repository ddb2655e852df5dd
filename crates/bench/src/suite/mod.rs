//! stub
use clap::Args;
#[allow(missing_docs)]
#[derive(Clone, Debug, Args)]
pub struct EdgeFlags {}
#[allow(missing_docs)]
#[derive(Clone, Debug, Args)]
pub struct ProfileFlags {}
#[allow(missing_docs)]
pub fn edge(_: &EdgeFlags) -> anyhow::Result<()> { Ok(()) }
#[allow(missing_docs)]
pub fn profile(_: &ProfileFlags) -> anyhow::Result<()> { Ok(()) }
