//! `stratafs volume export` and `import`.

use std::fs::File;
use std::io::{BufReader, BufWriter, IsTerminal};
use std::path::Path;

use super::args::{ExportArgs, ImportArgs};
use super::print;
use crate::cli::exit::{Failure, Outcome, say};
use crate::volume::Store;

/// Writes an archive to a file, which appears when it is whole, or to standard output.
pub fn export(store: &Store, args: &ExportArgs) -> Outcome {
    let sockets = match args.output.as_deref().filter(|path| *path != Path::new("-")) {
        Some(path) => to_file(store, &args.volume, path)?,
        None => {
            let out = std::io::stdout();
            if out.is_terminal() {
                return Err(Failure::Usage(format!(
                    "export {}: an archive is not for a terminal: give a file with `-o FILE`, or redirect",
                    args.volume
                )));
            }
            store.export(&args.volume, BufWriter::with_capacity(1 << 17, out.lock()))?
        }
    };
    if sockets > 0 {
        say(&format!(
            "export {}: sockets are left out, {sockets} of them, since archives have none",
            args.volume
        ));
    }
    Ok(())
}

fn to_file(store: &Store, volume: &str, path: &Path) -> Result<u64, Failure> {
    let failed = |error: std::io::Error| {
        Failure::Failed(format!(
            "export {volume}: {path:?} cannot be written ({error}): name another file with `-o`"
        ))
    };
    if path.metadata().is_ok_and(|facts| !facts.is_file()) {
        // A pipe or a device is written as it stands.
        let file = File::options().write(true).open(path).map_err(failed)?;
        return Ok(store.export(volume, BufWriter::with_capacity(1 << 17, file))?);
    }
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = tempfile::Builder::new().prefix(".stratafs-export-").tempfile_in(dir).map_err(failed)?;
    let sockets = store.export(volume, BufWriter::with_capacity(1 << 17, file.as_file()))?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(sockets)
}

/// Fills a volume from a file or from standard input, and prints its name.
pub fn import(store: &Store, args: &ImportArgs) -> Outcome {
    match args.file.as_deref().filter(|path| *path != Path::new("-")) {
        Some(path) => {
            let file = File::open(path).map_err(|error| {
                Failure::Failed(format!(
                    "import {}: {path:?} cannot be read ({error}): correct the path",
                    args.volume
                ))
            })?;
            store.import(&args.volume, BufReader::with_capacity(1 << 17, file))?;
        }
        None => {
            let input = std::io::stdin();
            if input.is_terminal() {
                return Err(Failure::Usage(format!(
                    "import {}: an archive does not come from a terminal: name a file, or redirect",
                    args.volume
                )));
            }
            store.import(&args.volume, input.lock())?;
        }
    }
    print(&format!("{}\n", args.volume));
    Ok(())
}
