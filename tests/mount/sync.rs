//! What fsync(2) reaches, and what it tells.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::common::*;

/// What strace(1) with these options says of the daemon while `act` runs; nothing if it is not here.
pub fn traced(f: &Fixture, options: &[&str], act: impl FnOnce()) -> Option<String> {
    let log = f.dir().join("strace.log");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-y"]).args(options).arg("-o").arg(&log);
    strace.args(["-p", &f.daemon().to_string()]).stdin(Stdio::null()).stderr(Stdio::piped());
    let Ok(mut tracer) = try_spawn(&mut strace) else {
        println!("skipped: no strace");
        return None;
    };
    // It says so once all threads are attached.
    let mut says = BufReader::new(tracer.stderr.take().unwrap()).lines().map_while(Result::ok);
    let attached = says.any(|line| line.contains(" attached"));
    let rest = std::thread::spawn(move || says.count());
    if attached {
        act();
    }
    unsafe { libc::kill(tracer.id() as i32, libc::SIGINT) };
    tracer.wait().unwrap();
    rest.join().unwrap();
    if !attached {
        println!("skipped: nobody may be traced here");
        return None;
    }
    Some(fs::read_to_string(log).unwrap())
}

/// Source: kernel `ovl_fsync`, which syncs the upper file of a metacopy.
#[test]
fn the_metadata_of_a_file_whose_data_is_below_reaches_the_disk() {
    let Some(mut f) = Fixture::new(1).and_then(Fixture::need_root).and_then(|f| f.departs("no daemon"))
    else {
        return;
    };
    f.lower(0).file("f", "data");
    f.options = vec!["metacopy=on".into()];
    f.mount();
    let r = ro(f.p("f"));
    sys::chmod(f.p("f"), 0o600).unwrap();
    let synced = traced(&f, &["-e", "trace=fsync,fdatasync"], || r.sync_all().unwrap());
    let Some(synced) = synced else { return };
    assert!(synced.contains("upper/f>"), "{synced}");
    assert!(!synced.contains("l0/f>"), "{synced}");
}

/// Source: overlayfs.rst, "Volatile mount".
#[test]
fn a_volatile_mount_fails_every_sync_after_a_loss() {
    let Some(mut f) = Fixture::new(1).and_then(Fixture::need_root).and_then(|f| f.departs("no daemon"))
    else {
        return;
    };
    f.lower(0).file("d/low", "data").file("other", "data");
    f.mount_with(&["-o", "volatile"]);
    fs::write(f.p("new"), "x").unwrap();
    let (written, low, dir) = (rw(f.p("new")), ro(f.p("d/low")), ro(f.p("d")));
    for file in [&written, &low, &dir] {
        file.sync_all().unwrap();
    }
    // What the kernel says if a page of the file could not be written.
    let failing = ["-e", "trace=sync_file_range", "-e", "inject=sync_file_range:error=EIO:when=1"];
    let lost = traced(&f, &failing, || assert_eq!(err(written.sync_all()), Errno::EIO));
    if lost.is_some() {
        for file in [&written, &low, &dir] {
            assert_eq!(err(file.sync_all()), Errno::EIO);
        }
        assert_eq!(err(rw(f.p("other")).sync_data()), Errno::EIO);
    }
    drop((written, low, dir));
    f.unmount();
    fs::remove_dir_all(f.work("work/incompat")).unwrap();
    f.mount_with(&["-o", "volatile"]);
    rw(f.p("new")).sync_all().unwrap();
    f.unmount();
    fs::remove_dir_all(f.work("work/incompat")).unwrap();
}
