//! What the fuzz targets share.
//!
//! Each target is `target!(path)`, where the path leads to a plain function `fn(&[u8])` beside the parser it drives.
//! Under cargo-fuzz that is a target of libFuzzer; otherwise a program that runs each file named on its command line
//! (or standard input) through the function, to look into what a fuzzer found.

#[cfg(fuzzing)]
pub use libfuzzer_sys;

/// Makes a fuzz target of a function `fn(&[u8])`.
#[cfg(fuzzing)]
#[macro_export]
macro_rules! target {
    ($function:path) => {
        use $crate::libfuzzer_sys;
        libfuzzer_sys::fuzz_target!(|data: &[u8]| $function(data));
    };
}

/// Makes a program that runs files through a function `fn(&[u8])`.
#[cfg(not(fuzzing))]
#[macro_export]
macro_rules! target {
    ($function:path) => {
        fn main() -> std::io::Result<()> {
            $crate::run_files($function)
        }
    };
}

/// Runs each file named on the command line, or standard input if there is none, through a function.
///
/// # Errors
/// A file that cannot be read.
pub fn run_files(function: fn(&[u8])) -> std::io::Result<()> {
    let mut files = std::env::args_os().skip(1).peekable();
    if files.peek().is_none() {
        let mut data = Vec::new();
        std::io::Read::read_to_end(&mut std::io::stdin().lock(), &mut data)?;
        function(&data);
    }
    files.try_for_each(|file| std::fs::read(file).map(|data| function(&data)))
}
