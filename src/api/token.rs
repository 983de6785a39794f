//! The token file: who can read it may change the node.
//!
//! Owns making and reading the file. Does not own the comparison (see `edge::local`).

use std::{
    fmt,
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

/// Random bytes in a token: as many as a key has.
const TOKEN_BYTES: usize = 32;
/// Longest token file that is read.
const FILE_BYTES_MAX: u64 = 1_024;

/// A token, for those who may hand it on.
#[derive(Clone)]
pub struct Token(Zeroizing<String>);

impl Token {
    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// The token in `path`, made anew when there is no file. Only the owner can read the file, also
/// when it was there before with other permissions.
///
/// # Errors
/// [`TokenError`] names the file.
pub fn load_or_create(path: &Path) -> Result<Token, TokenError> {
    let in_file = |source| TokenError::File { path: path.to_owned(), source };
    match fs::metadata(path) {
        Ok(found) if found.len() <= FILE_BYTES_MAX => {
            owner_only(path).map_err(in_file)?;
            let token = read(path).map_err(in_file)?;
            if token.len() < TOKEN_BYTES || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(TokenError::Damaged { path: path.to_owned() });
            }
            Ok(Token(token.into()))
        }
        Ok(_) => Err(TokenError::Damaged { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut bytes = [0; TOKEN_BYTES];
            getrandom::fill(&mut bytes).map_err(|_| TokenError::NoRandomness)?;
            let token = data_encoding::HEXLOWER.encode(&bytes);
            create(path, &token).map_err(in_file)?;
            Ok(Token(token.into()))
        }
        Err(error) => Err(in_file(error)),
    }
}

/// The text of a token file, for those who have none but what is in it.
///
/// # Errors
/// What the system says.
pub fn read(path: &Path) -> io::Result<String> {
    Ok(fs::read_to_string(path)?.trim().to_owned())
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The file can't be read or written.
    #[error("the API's token file {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("the API's token file {} is damaged: remove it to get a new one", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The system gives no random bytes.
    #[error("the system gives no random bytes for the API's token")]
    NoRandomness,
}

#[cfg(unix)]
fn owner_only(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
}

#[cfg(not(unix))]
fn owner_only(_path: &Path) -> io::Result<()> {
    Ok(())
}

fn create(path: &Path, token: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    writeln!(file, "{token}")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_token_is_made_once_and_only_its_owner_reads_it() {
        let path = std::env::temp_dir().join(format!("astral-token-{}", std::process::id()));
        let _ = fs::remove_file(&path);
        let token = load_or_create(&path).unwrap();
        assert_eq!(token.as_str().len(), 64);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(load_or_create(&path).unwrap().as_str(), token.as_str());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, "short").unwrap();
        let error = load_or_create(&path).unwrap_err().to_string();
        assert!(error.contains("remove it"), "{error}");
        fs::remove_file(&path).unwrap();
    }
}
