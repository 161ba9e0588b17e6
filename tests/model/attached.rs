//! What is attached in a run: a directory of the host, another one read-only, and a tmpfs. The mount has them as grafts, the plain tree as
//! mounts of the kernel.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::case::Terms;
use crate::format::snapshot::{Tree, Untouched};
use crate::layers::age;
use crate::op::{Op, Step};
use crate::side::Outcome;

const TMPFS: &str = "mode=777";

/// The attached things of one run. They are below names of the root, which nobody can move.
pub struct Attached {
    home: PathBuf,
    plain: PathBuf,
    writable: String,
    read_only: String,
    tmpfs: String,
    untouched: Untouched,
    /// A tree in which the writable source has the name that it has in the mount, if the host takes part.
    host: Option<PathBuf>,
}

impl Attached {
    /// Chooses the names, makes the sources, and mounts them in the plain tree. Nothing where the run has none.
    pub fn new(terms: Terms, top: &Path, plain: &Path) -> Option<Attached> {
        if !matches!(terms, Terms::Grafts | Terms::NestedGrafts | Terms::HostChanges) {
            return None;
        }
        let usable = |name: &&str| plain.join(name).symlink_metadata().map_or(true, |meta| meta.is_dir());
        let names = ["b", "d", "c", "a", "x", "y", "z"];
        let mut names = names.iter().filter(|name| usable(name)).map(|name| (*name).to_owned());
        let mut next = || names.next().unwrap();
        let (writable, read_only) = (next(), next());
        // The parent of a nested one is where another is attached, so nobody can move it, either.
        let tmpfs = if terms == Terms::NestedGrafts { format!("{writable}/a") } else { next() };
        let home = top.join("attached");
        for side in ["mount", "plain"] {
            for source in ["writable", "read_only"] {
                plant(&home.join(side).join(source));
            }
        }
        let untouched = Untouched::new(&[home.join("mount/read_only")]);
        let host = (terms == Terms::HostChanges).then(|| home.join("host"));
        if let Some(host) = &host {
            fs::create_dir(host).unwrap();
            // Ordinary users come this way, too.
            for dir in [&home, &home.join("mount"), host] {
                fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
            }
            symlink(home.join("mount/writable"), host.join(&writable)).unwrap();
        }
        let attached =
            Attached { home, plain: plain.to_owned(), writable, read_only, tmpfs, untouched, host };
        attached.mount_plain();
        Some(attached)
    }

    /// The words for stratafs.
    pub fn words(&self) -> Vec<String> {
        let bind = |source: &str, target: &str, mode: &str| {
            format!("{}:/{target}{mode}", self.home.join("mount").join(source).display())
        };
        let binds = [bind("writable", &self.writable, ""), bind("read_only", &self.read_only, ":ro")];
        let mut words: Vec<String> = binds.into_iter().flat_map(|bind| ["-v".to_owned(), bind]).collect();
        words.extend(["--tmpfs".to_owned(), format!("/{}:{TMPFS}", self.tmpfs)]);
        words
    }

    fn mount_plain(&self) {
        let none = None::<&str>;
        for (source, target) in [("writable", &self.writable), ("read_only", &self.read_only)] {
            let (source, target) = (self.home.join("plain").join(source), self.plain.join(target));
            fs::create_dir_all(&target).unwrap();
            mount(Some(&source), &target, none, MsFlags::MS_BIND, none).unwrap();
        }
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(none, &self.plain.join(&self.read_only), none, flags, none).unwrap();
        self.mount_tmpfs();
    }

    fn mount_tmpfs(&self) {
        let target = self.plain.join(&self.tmpfs);
        fs::create_dir_all(&target).unwrap();
        mount(Some("tmpfs"), &target, Some("tmpfs"), MsFlags::empty(), Some(TMPFS)).unwrap();
    }

    /// A new tmpfs in the plain tree, as the next mount has one.
    pub fn next_tmpfs(&self) {
        umount2(&self.plain.join(&self.tmpfs), MntFlags::empty()).unwrap();
        self.mount_tmpfs();
    }

    /// A tree without what lasts no longer than a mount.
    pub fn lasting(&self, tree: &Tree) -> Tree {
        without(tree, &[&self.tmpfs])
    }

    /// A tree without all that is not of the layers.
    pub fn layers(&self, tree: &Tree) -> Tree {
        without(tree, &[&self.writable, &self.read_only, &self.tmpfs])
    }

    /// Fails where the source that is read-only has changed.
    pub fn check(&self) {
        self.untouched.check();
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        for target in [&self.tmpfs, &self.read_only, &self.writable] {
            // Detached, since a failed run may have files open there.
            let _ = umount2(&self.plain.join(target), MntFlags::MNT_DETACH);
        }
    }
}

fn without(tree: &Tree, targets: &[&String]) -> Tree {
    let inside = |path: &str, target: &str| {
        path.strip_prefix(target).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let kept = tree.iter().filter(|(path, _)| !targets.iter().any(|target| inside(path, target)));
    kept.map(|(path, fields)| (path.clone(), fields.clone())).collect()
}

/// A tree with the names that steps ask for.
fn plant(root: &Path) {
    for dir in ["", "a", "a/b", "b", "c", "c/a"] {
        fs::create_dir_all(root.join(dir)).unwrap();
        fs::set_permissions(root.join(dir), fs::Permissions::from_mode(0o777)).unwrap();
    }
    for file in ["e", "a/e", "a/b/f", "b/f", "c/g"] {
        fs::write(root.join(file), format!("{file} of the host").repeat(400)).unwrap();
        fs::set_permissions(root.join(file), fs::Permissions::from_mode(0o666)).unwrap();
    }
    fs::hard_link(root.join("e"), root.join("b/g")).unwrap();
    symlink("e", root.join("f")).unwrap();
    age(root);
}

/// Whether both refuse, one of them for the sake of what is attached. That something is read-only, elsewhere, or busy is what the kernel
/// says of mounts before it looks at the names, or once it has looked at the directory beneath one; in one mount it looks first, at
/// what shows. Either may have another of the ordinary reasons.
pub fn refuse(theirs: &Outcome, ours: &Outcome) -> bool {
    use Errno::{EBUSY, EIO, ENOSYS, ENOTCONN, EROFS, ESTALE, EXDEV};
    let (Err(theirs), Err(ours)) = (theirs, ours) else { return false };
    let ordinary = ![EIO, ESTALE, ENOTCONN, ENOSYS].contains(ours);
    ordinary && (matches!(theirs, EROFS | EXDEV | EBUSY) || *ours == EBUSY)
}

impl Attached {
    /// The root from which the host makes the step, where it does: one with no umask, of things inside the writable source.
    pub fn host_of(&self, step: &Step) -> Option<PathBuf> {
        let inside =
            |path: &&str| path.strip_prefix(self.writable.as_str()).is_some_and(|rest| rest.len() > 1);
        let paths = step.op.paths();
        let by_host = step.umask == 0 && !paths.is_empty() && paths.iter().all(inside);
        self.host.clone().filter(|_| by_host)
    }

    /// Whether the step means something else by nature: between two filesystems the kernel copies no ranges; and of what needs no change,
    /// since a file gets the name that it has, or a file loses the ACL that only directories have, it says that a mount is read-only.
    pub fn differs_by_nature(&self, step: &Step) -> bool {
        let object =
            |path: &str| self.plain.join(path).symlink_metadata().map(|meta| (meta.dev(), meta.ino())).ok();
        match step.op {
            Op::CopyRange(..) => true,
            Op::Removexattr(_, "system.posix_acl_default") => true,
            Op::Rename(from, to, _) => object(from).is_some_and(|one| object(to) == Some(one)),
            _ => false,
        }
    }
}
