//! A folder of a test's own.

use std::fs;
use std::path::{Path, PathBuf};

/// Removed when dropped.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("volley-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("the temporary folder is writable");
        Self(path)
    }

    /// Writes a file in one step, as deployments do; returns its path.
    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        let (path, beside) = (self.0.join(name), self.0.join(format!("{name}.new")));
        fs::write(&beside, text).expect("the temporary folder is writable");
        fs::rename(&beside, &path).expect("the temporary folder is writable");
        path.display().to_string()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
