//! The file beside the token that says where a running node's API is.
//!
//! Owns its content and its lock: the node holds the lock as long as it lives, so whoever finds the
//! file unlocked knows that the node is dead, and sends no token to whoever listens on its port now.
//! Does not own the port nor the token.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use fs4::FileExt;

/// Longest URL that is read.
const FILE_BYTES_MAX: u64 = 1_024;

/// The file of a running node. The lock ends with this value, or with the process.
#[derive(Debug)]
pub struct UrlFile {
    path: PathBuf,
    _lock: File,
}

impl UrlFile {
    /// Says that the API of this process, whose token is in `token_file`, is at `url`.
    ///
    /// # Errors
    /// What the system says.
    pub fn create(token_file: &Path, url: &str) -> io::Result<Self> {
        let path = beside(token_file);
        // Written under another name: a file of the final name has been locked before it had it, so
        // its content is always that of whoever holds its lock.
        let fresh = path.with_extension(format!("url.{}", std::process::id()));
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&fresh)?;
        FileExt::lock(&file)?;
        writeln!(file, "{url}")?;
        fs::rename(&fresh, &path)?;
        Ok(Self { path, _lock: file })
    }

    /// Removes the file: the node ends in order.
    pub fn remove(&self) {
        // A leftover is unlocked, which says the same.
        let _ = fs::remove_file(&self.path);
    }
}

/// Where the API of the living node with this token file is; `None` when no such node lives.
///
/// # Errors
/// When the file is there and can't be read.
pub fn living(token_file: &Path) -> io::Result<Option<String>> {
    let file = match File::open(beside(token_file)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match FileExt::try_lock_shared(&file) {
        Ok(()) => return Ok(None),
        Err(fs4::TryLockError::WouldBlock) => {}
        Err(fs4::TryLockError::Error(error)) => return Err(error),
    }
    let mut url = String::new();
    file.take(FILE_BYTES_MAX).read_to_string(&mut url)?;
    Ok(Some(url.trim().to_owned()))
}

fn beside(token_file: &Path) -> PathBuf {
    token_file.with_extension("url")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_living_node_says_where_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let token = folder.path().join("api.token");
        assert_eq!(living(&token).unwrap(), None);
        let first = UrlFile::create(&token, "http://127.0.0.1:1").unwrap();
        assert_eq!(living(&token).unwrap().as_deref(), Some("http://127.0.0.1:1"));
        drop(first); // Killed: the file stays, the lock goes.
        assert!(folder.path().join("api.url").exists());
        assert_eq!(living(&token).unwrap(), None);
        let second = UrlFile::create(&token, "http://127.0.0.1:2").unwrap();
        assert_eq!(living(&token).unwrap().as_deref(), Some("http://127.0.0.1:2"));
        second.remove();
        assert_eq!(living(&token).unwrap(), None);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left");
    }
}
