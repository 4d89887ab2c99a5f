//! Which files have changed.
//!
//! Files are looked at, rather than waited for: that works on every file system, follows links that are swapped (as
//! Kubernetes swaps a `ConfigMap`'s `..data`), and costs a system call a file. A change counts once it was seen twice the
//! same, so that a file that is being written is left alone.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// What tells one state of a file from another: where its links lead, and when it was written. `None` where it is not.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

/// Files that are looked at now and then, as one.
#[derive(Debug)]
pub(crate) struct Watched {
    files: Vec<PathBuf>,
    /// As they were when they were last used.
    used: Vec<Stamp>,
    /// As they were at the last look.
    seen: Vec<Stamp>,
}

impl Watched {
    /// Takes the files as they are now for known.
    pub(crate) fn new(files: Vec<PathBuf>) -> Self {
        let used: Vec<Stamp> = files.iter().map(stamp).collect();
        Self { files, seen: used.clone(), used }
    }

    /// Whether any has changed since it was last said, and has settled since the last look.
    pub(crate) fn has_changed(&mut self) -> bool {
        let now: Vec<Stamp> = self.files.iter().map(stamp).collect();
        let settled = now == self.seen;
        self.seen = now;
        let changed = settled && self.seen != self.used;
        if changed {
            self.used.clone_from(&self.seen);
        }
        changed
    }
}

fn stamp(path: &PathBuf) -> Stamp {
    let file = fs::metadata(path).ok()?;
    Some((file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_swapped_link_and_a_rewritten_file_are_seen_once_and_only_when_they_have_settled() {
        let folder = std::env::temp_dir().join(format!("volley-watch-{}", std::process::id()));
        for version in ["1", "2"] {
            fs::create_dir_all(folder.join(version)).expect("writable");
            fs::write(folder.join(version).join("volley.toml"), version.repeat(3)).expect("writable");
        }
        // As Kubernetes lays a ConfigMap out: the file leads through `..data`, which is replaced in one step.
        symlink("1", folder.join("..data")).expect("links");
        symlink("..data/volley.toml", folder.join("volley.toml")).expect("links");
        let mut watched = Watched::new(vec![folder.join("volley.toml")]);
        assert!(!watched.has_changed());

        symlink("2", folder.join("..data_tmp")).expect("links");
        fs::rename(folder.join("..data_tmp"), folder.join("..data")).expect("links");
        assert!(!watched.has_changed(), "not yet: it may still be being written");
        assert!(watched.has_changed());
        assert!(!watched.has_changed(), "it was said");

        fs::write(folder.join("2").join("volley.toml"), "longer than before").expect("writable");
        assert_eq!([watched.has_changed(), watched.has_changed(), watched.has_changed()], [false, true, false]);
        fs::remove_file(folder.join("volley.toml")).expect("it is there");
        assert_eq!([watched.has_changed(), watched.has_changed(), watched.has_changed()], [false, true, false]);
        fs::remove_dir_all(folder).expect("it was made above");
    }
}
