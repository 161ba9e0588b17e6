use std::path::PathBuf;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    // g MOUNTPOINT LOWER UPPER|- WORK specs...
    let upper = (a[3] != "-")
        .then(|| stratafs::config::Upper { dir: PathBuf::from(&a[3]), work: PathBuf::from(&a[4]) });
    let mut c = stratafs::config::Config::new(vec![PathBuf::from(&a[2])], upper, PathBuf::from(&a[1]));
    tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).init();
    for s in &a[5..] {
        let spec = if let Some(t) = s.strip_prefix("tmpfs:") {
            let mut x =
                stratafs::graft::volume(std::ffi::OsStr::new(&format!("/:{t}")), std::path::Path::new("/"))
                    .unwrap();
            x.source = stratafs::graft::Source::Tmpfs { size: None, mode: None };
            x
        } else {
            stratafs::graft::volume(std::ffi::OsStr::new(s), std::path::Path::new("/")).unwrap()
        };
        c.grafts.push(spec);
    }
    c.grafts.sort_by_key(|s| s.target.components().count());
    let m = match stratafs::fuse::session::Mount::new(c) {
        Ok(m) => m,
        Err(e) => {
            eprintln!("{e}");
            std::process::exit(1)
        }
    };
    m.run().unwrap();
}
