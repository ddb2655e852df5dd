//! Servers of others, as Debian packages them: Icecast and nginx, with live sources of their own. They run without
//! rights, on free ports, from configurations written here.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::lab::{Lab, Running, free_port, peer_ids, wait_for, wait_until};

/// Whether a program is there. Debian keeps servers where users do not look.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/usr/bin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(more)
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
}

/// What is missing of the programs the peers need.
pub(crate) fn missing() -> Vec<&'static str> {
    ["icecast2", "nginx", "ffmpeg", "openssl"].into_iter().filter(|program| find(program).is_none()).collect()
}

/// A peer that serves.
pub(crate) struct Peer {
    pub(crate) running: Running,
    pub(crate) url: String,
}

/// A directory of whoever serves, and nobody else but us writes to.
fn own_directory(lab: &Lab) -> Result<PathBuf> {
    let directory = lab.directory()?;
    if let Some([user, group]) = peer_ids() {
        chown(&directory, Some(user), Some(group))?;
        // It may go through what lies above, and no more.
        if let Some(parent) = directory.parent() {
            fs::set_permissions(parent, fs::Permissions::from_mode(0o711))?;
        }
    }
    Ok(directory)
}

/// Half a minute of noise in Opus at 48 kbit/s, constant, as Ogg: what sources repeat.
fn source_file(lab: &Lab) -> Result<PathBuf> {
    let path = lab.directory()?.join("source.ogg");
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-loglevel", "error", "-nostdin", "-f", "lavfi", "-i"]);
    ffmpeg.args(["anoisesrc=color=pink:amplitude=0.2:sample_rate=48000:duration=30"]);
    ffmpeg.args(["-ac", "1", "-c:a", "libopus", "-b:a", "48k", "-vbr", "off"]).arg(&path);
    let status = ffmpeg.status().context("cannot run ffmpeg")?;
    if status.success() { Ok(path) } else { bail!("ffmpeg: {status}") }
}

/// A source that goes on for ever in its own time.
fn source(lab: &Lab) -> Result<Command> {
    let file = source_file(lab)?;
    let mut ffmpeg = lab.beside(Path::new("ffmpeg"));
    ffmpeg.args(["-loglevel", "error", "-nostdin", "-re", "-stream_loop", "-1", "-i"]).arg(file);
    ffmpeg.args(["-c", "copy"]).stdout(Stdio::null());
    Ok(ffmpeg)
}

/// Icecast with pages of so many milliseconds.
pub(crate) fn icecast(lab: &Lab, page_ms: u32) -> Result<Peer> {
    let (directory, port) = (own_directory(lab)?, free_port()?);
    let config = directory.join("icecast.xml");
    let place = directory.display();
    let text = format!(
        "<icecast><location>bench</location><admin>nobody@localhost</admin><hostname>localhost</hostname>\
         <limits><clients>19500</clients><sources>2</sources><queue-size>524288</queue-size>\
         <client-timeout>30</client-timeout><header-timeout>15</header-timeout><source-timeout>10</source-timeout>\
         <burst-on-connect>1</burst-on-connect><burst-size>65535</burst-size></limits>\
         <authentication><source-password>bench</source-password><relay-password>bench</relay-password>\
         <admin-user>admin</admin-user><admin-password>bench</admin-password></authentication>\
         <listen-socket><port>{port}</port><bind-address>127.0.0.1</bind-address></listen-socket>\
         <fileserve>0</fileserve><paths><basedir>{place}</basedir><logdir>{place}</logdir>\
         <webroot>/usr/share/icecast2/web</webroot><adminroot>/usr/share/icecast2/admin</adminroot></paths>\
         <logging><accesslog>access.log</accesslog><errorlog>error.log</errorlog><loglevel>1</loglevel></logging>\
         <security><chroot>0</chroot></security></icecast>\n"
    );
    fs::write(&config, text)?;
    let mut running = Running::default();
    let program = find("icecast2").context("there is no icecast2")?;
    let mut icecast = lab.peer(&program.display().to_string());
    running.measure(icecast.arg("-c").arg(&config).stdout(Stdio::null()).stderr(Stdio::null()))?;
    wait_for(port, &mut running)?;
    let mut source = source(lab)?;
    source.args(["-f", "ogg", "-page_duration", &(1_000 * page_ms).to_string()]);
    source.args(["-content_type", "application/ogg"]);
    running.add(source.arg(format!("icecast://source:bench@127.0.0.1:{port}/live.ogg")))?;
    // The burst for those who join has to be there.
    std::thread::sleep(std::time::Duration::from_secs(12));
    running.check()?;
    Ok(Peer { running, url: format!("http://127.0.0.1:{port}/live.ogg") })
}

/// nginx with HLS of two-second segments, plain (`sendfile` off, which is its cheaper way here) or TLS.
pub(crate) fn nginx(lab: &Lab, tls: bool) -> Result<Peer> {
    let (directory, port) = (own_directory(lab)?, free_port()?);
    let place = directory.display();
    let mut listen = format!("listen 127.0.0.1:{port} backlog=4096;");
    if tls {
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]);
        openssl.args(["-subj", "/CN=localhost", "-days", "30", "-keyout"]).arg(directory.join("key.pem"));
        openssl.arg("-out").arg(directory.join("cert.pem")).stderr(Stdio::null());
        if !openssl.status().context("cannot run openssl")?.success() {
            bail!("openssl makes no certificate");
        }
        let key = directory.join("key.pem");
        fs::set_permissions(key, fs::Permissions::from_mode(0o644))?;
        listen = format!(
            "listen 127.0.0.1:{port} ssl backlog=4096; ssl_certificate {place}/cert.pem; \
             ssl_certificate_key {place}/key.pem; ssl_protocols TLSv1.3; ssl_session_tickets on;"
        );
    }
    let text = format!(
        "daemon off; worker_processes 1; worker_rlimit_nofile 20000; pid {place}/nginx.pid;\n\
         error_log {place}/error.log crit;\nevents {{ worker_connections 19800; multi_accept on; }}\n\
         http {{ access_log off; sendfile off; tcp_nodelay on; output_buffers 1 64k; server_tokens off;\n\
         keepalive_timeout 75s; keepalive_requests 1000000; reset_timedout_connection on;\n\
         open_file_cache max=200 inactive=60s; open_file_cache_valid 1s; open_file_cache_errors on;\n\
         types {{ application/vnd.apple.mpegurl m3u8; video/iso.segment m4s; video/mp4 mp4; }}\n\
         client_body_temp_path {place}/body; proxy_temp_path {place}/proxy; fastcgi_temp_path {place}/fastcgi;\n\
         uwsgi_temp_path {place}/uwsgi; scgi_temp_path {place}/scgi;\n\
         server {{ {listen} root {place}; }} }}\n"
    );
    let config = directory.join("nginx.conf");
    fs::write(&config, text)?;
    let mut running = Running::default();
    let mut source = source(lab)?;
    source.args(["-f", "hls", "-hls_time", "2", "-hls_list_size", "6", "-hls_segment_type", "fmp4"]);
    source.args(["-hls_fmp4_init_filename", "init.mp4", "-hls_flags", "delete_segments+temp_file"]);
    source.arg("-hls_segment_filename").arg(directory.join("s%05d.m4s"));
    running.add(source.arg(directory.join("live.m3u8")))?;
    let program = find("nginx").context("there is no nginx")?;
    let mut nginx = lab.peer(&program.display().to_string());
    running.measure(nginx.arg("-c").arg(&config).stdout(Stdio::null()).stderr(Stdio::null()))?;
    wait_for(port, &mut running)?;
    let playlist = directory.join("live.m3u8");
    wait_until("the playlist", &mut running, || {
        fs::read_to_string(&playlist).is_ok_and(|text| text.matches("#EXTINF").count() >= 3)
    })?;
    let scheme = if tls { "https" } else { "http" };
    Ok(Peer { running, url: format!("{scheme}://127.0.0.1:{port}/live.m3u8") })
}
