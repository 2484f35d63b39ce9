//! The bytes of a file, in pages, so that holes and copies cost nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

/// What the operating system writes back as one.
pub const PAGE_BYTES: u64 = 4096;

/// What a disk writes whole or not at all.
pub const SECTOR_BYTES: u64 = 512;

const PAGE_LENGTH: usize = 4096;

type Page = [u8; PAGE_LENGTH];

/// The bytes of a file. Cheap to clone; pages of zeros take no room.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Content {
    length: u64,
    /// No page is all zeros, so that equal contents are equal values.
    pages: BTreeMap<u64, Arc<Page>>,
}

impl Content {
    /// These bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut content = Self::default();
        content.write(0, bytes);
        content
    }

    /// How long the file is, in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Up to `length` bytes from `offset` on: fewer at the end of the file.
    #[must_use]
    pub fn read(&self, offset: u64, length: u64) -> Vec<u8> {
        let end = self.length.min(offset.saturating_add(length));
        let mut bytes = Vec::new();
        let mut at = offset;
        while at < end {
            let (page, start, count) = piece(at, end);
            match self.pages.get(&page) {
                Some(found) => bytes.extend_from_slice(&found[start..start + count]),
                None => bytes.resize(bytes.len() + count, 0),
            }
            at += count as u64;
        }
        bytes
    }

    /// All of it.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.read(0, self.length)
    }

    /// The pages that are not all zeros, with where they start; the last may reach beyond the end of the file.
    pub fn pages(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let pages = self.pages.iter();
        pages.map(|(page, bytes)| (page * PAGE_BYTES, bytes.as_slice()))
    }

    /// Writes, and makes the file longer where that is needed.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        self.put(offset, data);
        self.length = self.length.max(offset + data.len() as u64);
    }

    /// Cuts the file, or makes it longer with zeros.
    pub fn resize(&mut self, length: u64) {
        let (page, start) = (length / PAGE_BYTES, length % PAGE_BYTES);
        let beyond = self.pages.split_off(&page);
        if let Some(bytes) = beyond.get(&page) {
            let kept = bytes[..usize::try_from(start).expect("less than a page")].to_vec();
            self.put(page * PAGE_BYTES, &kept);
        }
        self.length = length;
    }

    /// Writes without changing the length: for a file that is put together piece by piece and resized then.
    pub(crate) fn put(&mut self, offset: u64, data: &[u8]) {
        let end = offset + data.len() as u64;
        let (mut at, mut rest) = (offset, data);
        while at < end {
            let (page, start, count) = piece(at, end);
            let (now, later) = rest.split_at(count);
            self.put_in_page(page, start, now);
            rest = later;
            at += count as u64;
        }
    }

    fn put_in_page(&mut self, page: u64, start: usize, data: &[u8]) {
        let entry = self
            .pages
            .entry(page)
            .or_insert_with(|| Arc::new([0; PAGE_LENGTH]));
        Arc::make_mut(entry)[start..start + data.len()].copy_from_slice(data);
        if entry.iter().all(|byte| *byte == 0) {
            self.pages.remove(&page);
        }
    }

    /// Makes the range in `other` what it is here, page by page.
    pub(crate) fn copy_pages_to(&self, other: &mut Self, offset: u64, length: u64) {
        for page in offset / PAGE_BYTES..(offset + length).div_ceil(PAGE_BYTES) {
            match self.pages.get(&page) {
                Some(bytes) => other.pages.insert(page, Arc::clone(bytes)),
                None => other.pages.remove(&page),
            };
        }
    }
}

/// The part of `at..end` that lies in the page of `at`: the page, where in it, and how many bytes.
fn piece(at: u64, end: u64) -> (u64, usize, usize) {
    let (page, start) = (at / PAGE_BYTES, at % PAGE_BYTES);
    let count = (PAGE_BYTES - start).min(end - at);
    let small = |number: u64| usize::try_from(number).expect("at most a page");
    (page, small(start), small(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_over_page_borders_is_read_back() {
        let mut content = Content::default();
        let data: Vec<u8> = (0..10_000_u32).map(|number| (number % 251) as u8).collect();
        content.write(3_000, &data);
        assert_eq!(content.length(), 13_000);
        assert_eq!(content.read(3_000, 99_999), data);
        assert_eq!(content.read(0, 3_000), vec![0; 3_000]);
        assert_eq!(content.read(13_000, 1), []);
    }

    #[test]
    fn a_file_that_is_cut_and_made_longer_again_has_zeros_there() {
        let mut content = Content::of(&[7; 9_000]);
        content.resize(5_000);
        content.resize(9_000);
        let bytes = content.bytes();
        assert!(bytes[..5_000].iter().all(|byte| *byte == 7));
        assert!(bytes[5_000..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn zeros_that_were_written_equal_zeros_that_were_not() {
        let mut written = Content::of(&[1; 5_000]);
        written.write(0, &[0; 5_000]);
        let mut hole = Content::default();
        hole.resize(5_000);
        assert_eq!(written, hole);
    }
}
