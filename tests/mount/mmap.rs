//! Memory maps and programs run from the mount; what maps see across a copy-up is in `coherence`.

use crate::common::*;
use std::process::Command;

#[test]
fn shared_maps_write_through() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("low", vec![b'.'; 10_000]);
    f.upper().file("up", vec![b'.'; 10_000]);
    f.mount();
    for name in ["low", "up"] {
        let w = rw(f.p(name));
        let map = Map::writable(&w, 10_000);
        map.put(0, b"first");
        map.put(9_995, b"final");
        assert_eq!(&through(&w)[..6], b"first.");
        drop(w);
        map.put(5_000, b"after close");
        map.sync().unwrap();
        assert_eq!(&fs::read(f.p(name)).unwrap()[5_000..5_011], b"after close");
    }
    f.check(|m| {
        for name in ["low", "up"] {
            let data = fs::read(m.join(name)).unwrap();
            assert_eq!(data.len(), 10_000);
            assert_eq!((&data[..5], &data[9_995..]), (&b"first"[..], &b"final"[..]));
            assert_eq!(&data[5_000..5_011], b"after close");
        }
    });
}

/// Nothing is synced by hand: unmount must not lose what the map holds.
#[test]
fn unsynced_maps_survive_unmount() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("f", vec![b'.'; 8192]);
    f.mount();
    let map = Map::writable(&rw(f.p("f")), 8192);
    map.put(4096, b"kept");
    drop(map);
    f.check(|m| assert_eq!(&fs::read(m.join("f")).unwrap()[4094..4101], b"..kept."));
}

#[test]
fn private_maps_write_nowhere() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("low", "0123456789");
    f.mount();
    let map = Map::new(&ro(f.p("low")), 10, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE).unwrap();
    map.put(0, b"mine");
    assert_eq!(map.get(), b"mine456789");
    drop(map);
    f.check(|m| assert_eq!(text(m.join("low")), "0123456789"));
    assert!(!f.in_upper("low"));
}

#[test]
fn rights_of_maps_follow_the_descriptor() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("f", "0123456789");
    f.mount();
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    assert_eq!(Map::new(&ro(f.p("f")), 10, prot, libc::MAP_SHARED).err(), Some(Errno::EACCES));
    let w = sys::open(f.p("f"), libc::O_WRONLY, 0).unwrap();
    assert_eq!(Map::new(&w, 10, libc::PROT_READ, libc::MAP_SHARED).err(), Some(Errno::EACCES));
}

#[test]
fn a_map_of_a_growing_file() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("f", "low");
    f.mount();
    let w = rw(f.p("f"));
    let map = Map::writable(&w, 8192);
    w.set_len(8192).unwrap();
    map.put(8188, b"tail");
    drop((map, w));
    f.check(|m| {
        let data = fs::read(m.join("f")).unwrap();
        assert_eq!((&data[..4], &data[8188..]), (&b"low\0"[..], &b"tail"[..]));
    });
}

/// A store that the kernel's attribute cache does not notice needs a file that is not empty; what makes it longer is noticed.
#[test]
fn stores_into_a_new_file_change_its_times() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.mount();
    type Grow = fn(&File);
    let ways: [(&str, Grow); 3] = [
        ("write", |file| file.write_all_at(&[b'.'; 8192], 0).unwrap()),
        ("truncate", |file| file.set_len(8192).unwrap()),
        ("fallocate", |file| sys::fallocate(file, 0, 0, 8192).unwrap()),
    ];
    for (name, grow) in ways {
        let file = sys::open(f.p(name), libc::O_CREAT | libc::O_EXCL | libc::O_RDWR, 0o644).unwrap();
        let map = Map::writable(&file, 8192);
        assert_eq!(stat(f.p(name)).len(), 0);
        grow(&file);
        assert_eq!(stat(f.p(name)).len(), 8192, "{name}");
        map.put(0, b"first");
        map.sync().unwrap();
        let before = stat(f.p(name)).modified().unwrap();
        await_later_time();
        map.put(5000, b"later");
        map.sync().unwrap();
        assert!(stat(f.p(name)).modified().unwrap() > before, "{name}");
        drop(file);
        await_later_time();
        let before = stat(f.p(name)).modified().unwrap();
        map.put(6000, b"after the last close");
        map.sync().unwrap();
        assert!(stat(f.p(name)).modified().unwrap() > before, "{name}, closed");
    }
}

#[test]
fn programs_run_from_every_layer() {
    let Some(mut f) = Fixture::new(1) else { return };
    let program = fs::read("/bin/echo").unwrap();
    f.lower(0).file("low", &program).mode(0o755).file("script", "#!/bin/sh\necho from $0\n").mode(0o755);
    f.lower(0).file("touched", &program).mode(0o755).file("plain", &program).mode(0o644);
    f.upper().file("up", &program).mode(0o755);
    f.mount();
    sys::utimens(f.p("touched"), (5, 5), (5, 5)).unwrap();
    fs::copy(f.p("low"), f.p("new")).unwrap();
    assert!(f.in_upper("touched"));
    f.check(|m| {
        for name in ["low", "up", "touched", "new"] {
            assert_eq!(run(Command::new(m.join(name)).arg("hello")).ok().out, "hello\n", "{name}");
        }
        let script = m.join("script");
        assert_eq!(run(&mut Command::new(&script)).ok().out, format!("from {}\n", script.display()));
        assert_eq!(err(try_spawn(&mut Command::new(m.join("plain")))), Errno::EACCES);
    });
}

/// Source: execve(2), open(2): a program that runs cannot be written, where the kernel knows it runs.
#[test]
fn a_running_program_can_be_replaced() {
    let Some(mut f) = Fixture::new(1) else { return };
    f.lower(0).file("prog", fs::read("/bin/sleep").unwrap()).mode(0o755);
    f.mount();
    let mut child = spawn(Command::new(f.p("prog")).arg("30"));
    fs::write(f.p("tmp"), "#!/bin/sh\necho new\n").unwrap();
    sys::chmod(f.p("tmp"), 0o755).unwrap();
    sys::rename(f.p("tmp"), f.p("prog")).unwrap();
    assert_eq!(child.try_wait().unwrap(), None, "the old program runs on");
    assert_eq!(run(&mut Command::new(f.p("prog"))).ok().out, "new\n");
    child.kill().unwrap();
    child.wait().unwrap();
    f.check(|m| assert!(text(m.join("prog")).starts_with("#!")));
}

#[test]
fn noexec_is_obeyed() {
    let Some(mut f) = Fixture::new(1).and_then(|f| f.departs("the stand-in knows no mount flags")) else {
        return;
    };
    f.lower(0).file("prog", fs::read("/bin/echo").unwrap()).mode(0o755);
    f.options.push("noexec".into());
    f.mount();
    assert_eq!(err(try_spawn(&mut Command::new(f.p("prog")))), Errno::EACCES);
}

#[test]
fn a_set_user_id_program_works() {
    let Some(mut f) = Fixture::new(1).and_then(Fixture::need_root) else { return };
    f.lower(0).file("id", fs::read("/usr/bin/id").unwrap()).owner(1234, 1234).mode(0o4755);
    f.mount();
    let path = f.p("id");
    let out = as_user(1000, 1000, || run(Command::new(&path).arg("-u")).ok().out);
    assert_eq!(out, "1234\n");
}
