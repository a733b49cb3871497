//! The contents of a file, and what reads may return while it is cut and restored.
//!
//! Each aligned word names its file and its place. A cut at any byte leaves the bytes before it and zeros after it, so a
//! word that was the file's at some moment is a beginning of the full word followed by zeros.

/// Bytes of stores that are shorter than a word.
pub const SHORT: u8 = 0xFE;

/// The word of file number `file` at word `index`.
pub fn word(file: usize, index: u64) -> u64 {
    (file as u64 + 1) << 56 | 0xA5 << 48 | index
}

/// What thread `thread` stores in word `index` of a private mapping.
pub fn mark(thread: usize, index: u64) -> u64 {
    (0xF0 + thread as u64) << 56 | 0x5A << 48 | index
}

/// One word in eight is stored to byte by byte only.
pub fn is_ragged(index: u64) -> bool {
    index % 8 == 7
}

/// Bytes `offset..offset + len` of an uncut file.
pub fn bytes(file: usize, offset: u64, len: usize) -> Vec<u8> {
    (offset..offset + len as u64).map(|at| word(file, at / 8).to_le_bytes()[(at % 8) as usize]).collect()
}

/// The kinds of words that were met.
#[derive(Debug, Default, Clone, Copy)]
pub struct Met {
    pub whole: u64,
    pub cut: u64,
    pub marked: u64,
}

/// Checks what was read at `offset` of a file, through a private mapping if `private`.
///
/// # Panics
/// If some word was never the file's.
pub fn check(file: usize, offset: u64, read: &[u8], private: bool, met: &mut Met) {
    let mut rest = read;
    let mut at = offset;
    while !rest.is_empty() {
        let (index, from) = (at / 8, (at % 8) as usize);
        let n = rest.len().min(8 - from);
        let (now, later) = rest.split_at(n);
        let full = &word(file, index).to_le_bytes()[from..from + n];
        let same = now.iter().zip(full).take_while(|(a, b)| a == b).count();
        if same == n {
            met.whole += 1;
        } else if now[same..].iter().all(|&byte| byte == 0) {
            met.cut += 1;
        } else {
            let is_mark = |thread: usize| mark(thread, index).to_le_bytes()[from..from + n] == *now;
            let is_short = |(byte, full): (&u8, &u8)| *byte == SHORT || *byte == 0 || byte == full;
            let fine = private
                && if is_ragged(index) { now.iter().zip(full).all(is_short) } else { (0..16).any(is_mark) };
            assert!(
                fine,
                "word {index} of file {file} was never {now:02x?}, full {full:02x?}, private {private}"
            );
            met.marked += 1;
        }
        at += n as u64;
        rest = later;
    }
}

/// Checks a word read at an address where any mapping may be: some file's or some store's, or cut.
///
/// # Panics
/// If the word belongs to no place with this offset in a page.
pub fn check_stray(address: u64, read: [u8; 8], files: usize, met: &mut Met) {
    let value = u64::from_le_bytes(read);
    let index = value & 0xFFFF_FFFF_FFFF;
    let known = (0..files).any(|file| word(file, index) == value) || (0..16).any(|t| mark(t, index) == value);
    if known {
        assert_eq!(index % 512, address / 8 % 512, "{value:#x} was read at {address:#x}");
        met.whole += 1;
    } else {
        let short = is_ragged(address / 8) && read.contains(&SHORT);
        assert!(read[7] == 0 || short, "{value:#x} at {address:#x} belongs to no file");
        met.cut += 1;
    }
}
