//! The `origin` mark: which lower object an upper one was copied up from. Source: kernel `struct ovl_fb`.

const VERSION: u8 = 0;
const MAGIC: u8 = 0xfb;
const HEADER: usize = 21;
const FLAG_BIG_ENDIAN: u8 = 1 << 0;
const FLAG_ANY_ENDIAN: u8 = 1 << 1;
const FLAG_PATH_UPPER: u8 = 1 << 2;

/// A lower object, by the handle that its filesystem gives.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    /// Which filesystem.
    pub uuid: [u8; 16],
    /// The type of the handle, as `name_to_handle_at` gives it.
    pub handle_type: u8,
    /// The handle itself.
    pub handle: Vec<u8>,
}

impl Origin {
    /// The value of the attribute. Nothing if the handle is too long for it.
    pub fn format(&self, upper: bool) -> Option<Vec<u8>> {
        let len = u8::try_from(HEADER + self.handle.len()).ok()?;
        let endian = if cfg!(target_endian = "big") { FLAG_BIG_ENDIAN } else { 0 };
        let flags = endian | if upper { FLAG_PATH_UPPER } else { 0 };
        let mut value = vec![VERSION, MAGIC, len, flags, self.handle_type];
        value.extend_from_slice(&self.uuid);
        value.extend_from_slice(&self.handle);
        Some(value)
    }

    /// Reads a value; nothing if it is empty ("copied up, origin unknown"), of another version or byte order, or
    /// garbage: an origin is a help, never a condition.
    pub fn parse(value: &[u8]) -> Option<Origin> {
        let [VERSION, MAGIC, len, flags, handle_type, rest @ ..] = value else { return None };
        if usize::from(*len) != value.len() || rest.len() < 16 {
            return None;
        }
        let big = cfg!(target_endian = "big");
        if flags & FLAG_ANY_ENDIAN == 0 && (flags & FLAG_BIG_ENDIAN != 0) != big {
            return None;
        }
        let (uuid, handle) = rest.split_at(16);
        let uuid = uuid.try_into().ok()?;
        Some(Origin { uuid, handle_type: *handle_type, handle: handle.to_vec() })
    }

    /// The inode number inside the handle, for the filesystems whose handles are known to hold one, for a daemon
    /// that may not open handles. Source: kernel `include/linux/exportfs.h`.
    pub fn inode_hint(&self) -> Option<u64> {
        const INO32_GEN: u8 = 0x01;
        const INO32_GEN_PARENT: u8 = 0x02;
        const BTRFS: u8 = 0x4d;
        const XFS_INO64: u8 = 0x81;
        let word = |at: usize| {
            let bytes: [u8; 4] = self.handle.get(at..at + 4)?.try_into().ok()?;
            Some(u64::from(u32::from_ne_bytes(bytes)))
        };
        match self.handle_type {
            INO32_GEN | INO32_GEN_PARENT if self.handle.len() == 8 || self.handle.len() == 16 => word(0),
            // tmpfs: generation, then the number in two halves.
            INO32_GEN if self.handle.len() == 12 => Some(word(4)? | word(8)? << 32),
            XFS_INO64 | BTRFS => Some(word(0)? | word(4)? << 32),
            _ => None,
        }
    }

    /// The name of this origin's entry in the index directory: the attribute's value in lower-case hex.
    pub fn index_name(&self) -> Option<String> {
        Some(self.format(false)?.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_laid_out_as_the_kernel_lays_it_out() {
        let origin = Origin { uuid: [0; 16], handle_type: 1, handle: vec![0x0b, 0, 0, 0, 1, 2, 3, 4] };
        let value = origin.format(false).expect("short");
        assert_eq!(&value[..5], &[0x00, 0xfb, 0x1d, 0x00, 0x01]);
        assert_eq!(value.len(), 0x1d);
        assert_eq!(Origin::parse(&value), Some(origin.clone()));
        assert_eq!(origin.inode_hint(), Some(11));
        assert!(origin.index_name().expect("short").starts_with("00fb1d0001"));
    }

    #[test]
    fn garbage_is_no_origin() {
        for value in [&b""[..], b"\0", &[0, 0xfb, 5, 0, 1], &[0, 0xfa, 21, 0, 1], &[0xff; 300]] {
            assert_eq!(Origin::parse(value), None);
        }
        let mut wrong_order =
            Origin { uuid: [1; 16], handle_type: 1, handle: vec![0; 8] }.format(false).expect("short");
        wrong_order[3] ^= FLAG_BIG_ENDIAN;
        assert_eq!(Origin::parse(&wrong_order), None);
    }
}
