use super::*;

#[test]
fn what_is_probably_not_meant_is_noted_once() {
    let yaml = "services:
  s:
    volumes:
      - '${UNSET}/x:/y'
      - '${DATA}/x:/z'
      - {type: tmpfs, target: /t, tmpfs: {mode: 1777}}
      - {type: tmpfs, target: /u, tmpfs: {mode: 0o1777}}
      - {type: tmpfs, target: /v, tmpfs: {mode: '1777'}}
    tmpfs: ['/w$UNSET', '${UNSET:-/a}:mode=${ALSO}700']
";
    let dir = tempfile::TempDir::new().expect("dir");
    let file = dir.path().join("compose.yml");
    std::fs::write(&file, yaml).expect("file");
    let env = |name: &str| (name == "DATA").then(|| "/srv/data".to_owned());
    let notes = compose(&file, "s", env).expect("service").notes;
    let parts = [
        "services.s.volumes[0]: the variable UNSET is not set, and stands for nothing: set it, or write ${UNSET:-DEFAULT}",
        "services.s.volumes[2].tmpfs.mode: 1777 is decimal, and the mode is 0o3361: write \"1777\" or 0o1777",
        "services.s.tmpfs[0]: the variable UNSET",
        "services.s.tmpfs[1]: the variable ALSO",
    ];
    assert_eq!(notes.len(), parts.len(), "{notes:#?}");
    for (note, part) in notes.iter().zip(parts) {
        assert!(note.contains(part) && note.starts_with("compose file `"), "{part} is not in {note}");
    }
}
