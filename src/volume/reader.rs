//! The entries of a tar archive, one after the other: old, ustar, GNU and PAX headers.
//!
//! The headers are those of the `tar` crate. Its own iterator takes a newline in a PAX value, which attributes may well have,
//! for the end of the record, and the end of the bytes for the end of the archive; so entries are told apart here.

use std::io::{self, Read};

use tar::{EntryType, Header};

const BLOCK: usize = 512;
/// Names and attributes that are longer than this are no honest ones: all records of one entry together.
const LONGEST_RECORDS: u64 = 64 << 20;
/// How many records an entry may have, each of which takes memory of its own.
const MOST_RECORDS: usize = 16 << 10;
/// Those for the whole archive are kept for every entry.
const LONGEST_GLOBALS: u64 = 1 << 20;

/// Reads an archive. As a `Read` it gives the bytes of the entry that `next` has come to.
pub(super) struct Reader<R> {
    from: R,
    /// Bytes left of this entry's data.
    left: u64,
    /// Bytes between its end and the next header.
    padding: u64,
    globals: Records,
    /// Bytes of the records for the whole archive.
    described_in_all: u64,
}

type Records = Vec<(Vec<u8>, Vec<u8>)>;

/// An entry without its data.
pub(super) struct Head {
    pub header: Header,
    pub path: Vec<u8>,
    pub link: Option<Vec<u8>>,
    /// Of all records, also those for the whole archive; the last of a key counts.
    records: Records,
}

impl Head {
    /// What it is. The oldest archives have directories as files whose name ends in a slash.
    pub fn kind(&self) -> EntryType {
        match self.header.entry_type() {
            EntryType::Regular if self.path.ends_with(b"/") => EntryType::Directory,
            kind => kind,
        }
    }

    /// The value of a record.
    pub fn record(&self, key: &str) -> Option<&[u8]> {
        self.records.iter().rev().find(|(name, _)| name == key.as_bytes()).map(|(_, value)| &value[..])
    }

    /// All records.
    pub fn records(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.records.iter().map(|(key, value)| (&key[..], &value[..]))
    }

    /// A number that a record may say better than this field of the header.
    pub fn number(&self, key: &str, field: &[u8]) -> io::Result<i128> {
        match self.record(key) {
            None => number(field).ok_or_else(|| broken(&format!("its {key} is no number"))),
            Some(text) => {
                let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
                number.ok_or_else(|| broken(&format!("its {key} is no number")))
            }
        }
    }
}

fn broken(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}

impl<R: Read> Reader<R> {
    pub fn new(from: R) -> Reader<R> {
        Reader { from, left: 0, padding: 0, globals: Vec::new(), described_in_all: 0 }
    }

    /// The next entry; nothing at the end of the archive. Errors: `UnexpectedEof` if the archive does not say where it ends.
    pub fn next(&mut self) -> io::Result<Option<Head>> {
        let mut records = self.globals.clone();
        let (mut long_path, mut long_link) = (None, None);
        let mut described = 0;
        loop {
            self.skip()?;
            let Some(header) = self.header()? else { return Ok(None) };
            let mut head = Head { header, path: Vec::new(), link: None, records };
            let kind = head.header.entry_type();
            let field = &head.header.as_old().size;
            let size = match kind {
                EntryType::XHeader
                | EntryType::XGlobalHeader
                | EntryType::GNULongName
                | EntryType::GNULongLink => number(field).ok_or_else(|| broken("its size is no number"))?,
                _ => head.number("size", field)?,
            };
            let size = u64::try_from(size).map_err(|_| broken("its size is none that a file can have"))?;
            self.left = size;
            self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
            let describes = matches!(
                kind,
                EntryType::XHeader
                    | EntryType::XGlobalHeader
                    | EntryType::GNULongName
                    | EntryType::GNULongLink
            );
            if describes {
                described = size.saturating_add(described);
                self.described_in_all += if kind == EntryType::XGlobalHeader { size } else { 0 };
                if described > LONGEST_RECORDS || self.described_in_all > LONGEST_GLOBALS {
                    return Err(broken("its records are too long"));
                }
            }
            match kind {
                EntryType::XHeader => parse(&self.whole()?, &mut head.records)?,
                EntryType::XGlobalHeader => {
                    let data = self.whole()?;
                    parse(&data, &mut self.globals)?;
                    head.records = self.globals.clone();
                }
                EntryType::GNULongName => long_path = Some(name(self.whole()?)),
                EntryType::GNULongLink => long_link = Some(name(self.whole()?)),
                _ => {
                    if kind == EntryType::GNUSparse
                        || head.records().any(|(key, _)| key.starts_with(b"GNU.sparse."))
                    {
                        return Err(broken("it has sparse files: write it without `--sparse`"));
                    }
                    let path = head.record("path").map(<[u8]>::to_vec).or(long_path);
                    let link = head.record("linkpath").map(<[u8]>::to_vec).or(long_link);
                    head.path = path.unwrap_or_else(|| head.header.path_bytes().into_owned());
                    head.link = link.or_else(|| head.header.link_name_bytes().map(|link| link.into_owned()));
                    return Ok(Some(head));
                }
            }
            records = head.records;
        }
    }

    /// What comes after the end of the archive is read past: a writer pads, and must not be told that nobody reads.
    pub fn finish(mut self) -> io::Result<()> {
        io::copy(&mut self.from, &mut io::sink()).map(drop)
    }

    fn skip(&mut self) -> io::Result<()> {
        // What no archive can hold is missed at its end.
        let rest = self.left.saturating_add(self.padding);
        let skipped = io::copy(&mut self.from.by_ref().take(rest), &mut io::sink())?;
        (self.left, self.padding) = (0, 0);
        if skipped == rest { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// Nothing for the block of zeros that ends an archive.
    fn header(&mut self) -> io::Result<Option<Header>> {
        let mut header = Header::new_old();
        self.from.read_exact(header.as_mut_bytes())?;
        let bytes = header.as_bytes();
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        // The checksum counts its own eight bytes as blanks.
        let sum = |bytes: &[u8]| bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>();
        let expected = sum(&bytes[..148]) + 8 * u32::from(b' ') + sum(&bytes[156..]);
        match header.cksum() {
            Ok(found) if found == expected => Ok(Some(header)),
            _ => Err(broken("it is no tar archive, or damaged")),
        }
    }

    /// All data of an entry that describes the next one.
    fn whole(&mut self) -> io::Result<Vec<u8>> {
        let mut data = Vec::new();
        self.read_to_end(&mut data)?;
        Ok(data)
    }
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let got = self.from.read(buffer.get_mut(..len).unwrap_or_default())?;
        if got == 0 && len > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= got as u64;
        Ok(got)
    }
}

/// A number in a header: octal digits, or what does not fit into these as a big-endian number in two's complement, with
/// the highest bit as the sign that it is one. Source: tar(5), "Numeric Extensions".
fn number(field: &[u8]) -> Option<i128> {
    let (&first, rest) = field.split_first()?;
    if first & 0x80 == 0 {
        let digits = field.split(|byte| *byte == 0).next()?;
        let digits = std::str::from_utf8(digits).ok()?.trim();
        return i128::from_str_radix(digits, 8).ok().filter(|number| *number >= 0);
    }
    let sign = if first & 0x40 == 0 { 0 } else { -1 };
    let start = (sign << 6) | i128::from(first & 0x3f);
    // No field has more than twelve bytes.
    Some(rest.iter().take(14).fold(start, |number, byte| (number << 8) | i128::from(*byte)))
}

/// A device's major and minor number. Errors: one that no device has. Nothing where the header has no room for them, or says nothing.
pub(super) fn device(head: &Head) -> io::Result<(u32, u32)> {
    let header = &head.header;
    let fields = match (header.as_gnu(), header.as_ustar()) {
        (Some(gnu), _) => Some((&gnu.dev_major, &gnu.dev_minor)),
        (None, Some(ustar)) => Some((&ustar.dev_major, &ustar.dev_minor)),
        (None, None) => None,
    };
    let part = |key: &str, field: Option<&[u8; 8]>| {
        let blank = |field: &&[u8; 8]| field.iter().all(|byte| matches!(byte, 0 | b' '));
        let field = field.filter(|field| !blank(field)).map_or(&b"0"[..], |field| &field[..]);
        let number = head.number(key, field)?;
        u32::try_from(number)
            .map_err(|_| broken(&format!("its {key} {number} is none that a device can have")))
    };
    Ok((
        part("SCHILY.devmajor", fields.map(|(major, _)| major))?,
        part("SCHILY.devminor", fields.map(|(_, minor)| minor))?,
    ))
}

/// A name as GNU tar writes it: up to the first NUL.
fn name(mut data: Vec<u8>) -> Vec<u8> {
    data.truncate(data.iter().position(|byte| *byte == 0).unwrap_or(data.len()));
    data
}

/// Records `LENGTH KEY=VALUE\n`; the length counts all of it, so that a value may be any bytes.
fn parse(mut data: &[u8], records: &mut Records) -> io::Result<()> {
    while !data.is_empty() {
        let split = || {
            let blank = data.iter().position(|byte| *byte == b' ')?;
            let len: usize = std::str::from_utf8(data.get(..blank)?).ok()?.parse().ok()?;
            let record = data.get(blank + 1..len)?.strip_suffix(b"\n")?;
            let equals = record.iter().position(|byte| *byte == b'=')?;
            Some((record.get(..equals)?.to_vec(), record.get(equals + 1..)?.to_vec(), data.get(len..)?))
        };
        let (key, value, rest) = split().ok_or_else(|| broken("its records are damaged"))?;
        if records.len() >= MOST_RECORDS {
            return Err(broken("it has too many records"));
        }
        records.push((key, value));
        data = rest;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_may_hold_any_bytes() {
        let mut records = Records::new();
        parse(b"14 a=1\n=\x00\n\xff x\n6 b=c\n", &mut records).expect("records");
        assert_eq!(records, [(b"a".to_vec(), b"1\n=\0\n\xff x".to_vec()), (b"b".to_vec(), b"c".to_vec())]);
        for bad in
            ["x", "6 b=c", "7 b=c\n", "5 b=c\n", "3 b\n", "99999999999999999999 a=b\n", "0 a=b\n", " a=b\n"]
        {
            assert!(parse(bad.as_bytes(), &mut Records::new()).is_err(), "{bad:?}");
        }
    }

    /// Records of many megabytes were kept, in many pieces each: ten times the archive in memory.
    #[test]
    fn what_describes_an_entry_has_limits() {
        let header = |kind: EntryType, size: u64| {
            let mut header = Header::new_ustar();
            header.set_entry_type(kind);
            header.set_size(size);
            header.set_cksum();
            header
        };
        let refused = |pieces: &[(EntryType, u64)], byte: u8| {
            let mut archive: Box<dyn Read> = Box::new(io::empty());
            for (kind, size) in pieces {
                let head = io::Cursor::new(header(*kind, *size).as_bytes().to_vec());
                let padded = size.div_ceil(512) * 512;
                archive = Box::new(archive.chain(head).chain(io::repeat(byte).take(padded)));
            }
            let read = Reader::new(archive).next().map(|head| head.is_some());
            read.expect_err("refused").to_string()
        };
        let name = EntryType::GNULongName;
        assert!(refused(&[(name, 30 << 20), (name, 30 << 20), (name, 30 << 20)], b'a').contains("too long"));
        assert!(refused(&[(EntryType::XGlobalHeader, 2 << 20)], b'a').contains("too long"));
        let many = b"6 b=c\n".repeat(MOST_RECORDS + 1);
        assert!(
            parse(&many, &mut Records::new()).expect_err("many").to_string().contains("too many records")
        );
    }

    #[test]
    fn an_archive_that_is_cut_off_is_no_archive() {
        let mut whole = tar::Builder::new(Vec::new());
        for (path, content) in [("one", &b"1"[..]), ("two", &[b'2'; 600])] {
            let mut header = Header::new_gnu();
            header.set_size(content.len() as u64);
            whole.append_data(&mut header, path, content).expect("entry");
        }
        let whole = whole.into_inner().expect("archive");
        let read = |bytes: &[u8]| -> io::Result<Vec<(Vec<u8>, usize)>> {
            let mut reader = Reader::new(bytes);
            let mut found = Vec::new();
            while let Some(head) = reader.next()? {
                let mut data = Vec::new();
                reader.read_to_end(&mut data)?;
                found.push((head.path, data.len()));
            }
            Ok(found)
        };
        assert_eq!(read(&whole).expect("whole"), [(b"one".to_vec(), 1), (b"two".to_vec(), 600)]);
        // Two blocks of zeros end it; one is enough to know.
        for len in 0..whole.len() - 1024 + 512 {
            assert!(read(&whole[..len]).is_err(), "{len} of {}", whole.len());
        }
    }

    /// Reads all of an archive, of which at most so much data.
    fn read_whatever(bytes: &[u8]) {
        let mut reader = Reader::new(bytes);
        while let Ok(Some(head)) = reader.next() {
            let mut data = Vec::new();
            // Damaged entries end before they should.
            let _ = reader.by_ref().take(1 << 16).read_to_end(&mut data);
            assert!(data.len() <= bytes.len());
            let _ = (head.kind(), head.number("mtime", &head.header.as_old().mtime), head.record("path"));
        }
    }

    /// A header that is right in itself, whatever it says.
    fn header(kind: u8, size: u64, gnu: bool) -> Header {
        let mut header = if gnu { Header::new_gnu() } else { Header::new_ustar() };
        header.set_entry_type(EntryType::new(kind));
        header.set_size(size);
        header.set_cksum();
        header
    }

    /// Found with a size near 2^64: the padding did not fit beside it.
    #[test]
    fn regression_a_size_that_leaves_no_room_for_its_padding() {
        let records = b"29 size=18446744073709551615\n";
        let mut archive = header(b'x', records.len() as u64, false).as_bytes().to_vec();
        archive.extend_from_slice(records);
        archive.resize(1024, 0);
        archive.extend_from_slice(header(b'0', 1, false).as_bytes());
        archive.resize(4096, 0);
        let mut reader = Reader::new(&archive[..]);
        assert!(reader.next().expect("the entry").is_some());
        assert!(reader.next().is_err(), "its data is not there");
    }

    #[test]
    fn the_corpus_is_read() {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/corpus/tar");
        let all: Vec<_> = std::fs::read_dir(&dir).expect("corpus").flatten().collect();
        assert!(!all.is_empty());
        all.iter().for_each(|entry| read_whatever(&std::fs::read(entry.path()).expect("archive")));
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { cases: 500, failure_persistence: None, ..Default::default() })]

        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..2000)) {
            read_whatever(&bytes);
            // An error, or records; never more than there were bytes.
            let mut records = Records::new();
            if parse(&bytes, &mut records).is_ok() {
                proptest::prop_assert!(records.len() <= bytes.len());
            }
        }

        #[test]
        fn any_entries_are_read(entries in proptest::collection::vec(
            (proptest::sample::select(b"0125xgLKSV\0".to_vec()), 0u64..1200, proptest::bool::ANY, "[0-9]{1,3} (size|path|linkpath|a|mtime|GNU.sparse.x)=[0-9a\n]{0,20}\n"), 0..5,
        ), cut in 0usize..6000) {
            let mut archive = Vec::new();
            for (kind, size, gnu, records) in &entries {
                archive.extend_from_slice(header(*kind, *size, *gnu).as_bytes());
                // With the length that the record has, as often as not.
                let body = records.split_once(' ').map_or("", |(_, body)| body);
                let len = (1..4).map(|digits| body.len() + 1 + digits).find(|len| len.to_string().len() + 1 + body.len() == *len);
                let text = if *gnu { records.clone() } else { format!("{} {body}", len.unwrap_or(0)) };
                let mut data = text.into_bytes();
                data.resize((*size as usize).div_ceil(BLOCK) * BLOCK, 0);
                archive.extend_from_slice(&data);
            }
            archive.resize(archive.len() + 1024, 0);
            read_whatever(&archive);
            archive.truncate(cut);
            read_whatever(&archive);
        }
    }
}
