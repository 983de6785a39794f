//! nginx-rtmp, as a server to compare with.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::process::Process;

/// The stream's name.
const APP: &str = "live";

/// A running nginx-rtmp with chunks of 60 KB, on the first core.
pub struct Nginx {
    /// Its process.
    pub process: Process,
    /// Where an encoder publishes and players read.
    pub url: String,
    _scratch: Scratch,
}

impl Nginx {
    /// `None` when it is not installed.
    pub fn start() -> Option<Self> {
        let module = Path::new("/usr/lib/nginx/modules/ngx_rtmp_module.so");
        let program = Path::new("/usr/sbin/nginx");
        if !module.exists() || !program.exists() {
            return None;
        }
        let scratch = Scratch::new();
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).ok()?.port();
        let config = format!(
            "load_module {module};\ndaemon off;\nmaster_process off;\npid {dir}/pid;\n\
             error_log {dir}/error.log;\nevents {{ worker_connections 2048; }}\n\
             rtmp {{ server {{ listen 127.0.0.1:{port}; chunk_size 60000;\n\
             application {APP} {{ live on; }} }} }}\n",
            module = module.display(),
            dir = scratch.0.display(),
        );
        let file = scratch.0.join("nginx.conf");
        std::fs::write(&file, config).expect("a scratch file");
        let mut command = Command::new(program);
        command.arg("-e").arg(scratch.0.join("start.log")).arg("-p").arg(&scratch.0);
        command.arg("-c").arg(file);
        let process = Process::spawn(0, command);
        let url = format!("rtmp://127.0.0.1:{port}/{APP}/bench");
        for _ in 0..100 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                break;
            }
            std::thread::park_timeout(Duration::from_millis(50));
        }
        Some(Self { process, url, _scratch: scratch })
    }
}

/// A folder that goes with its value.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("astral-bench-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a scratch folder");
        Self(dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Left behind, it is a few kilobytes of logs.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
