//! An entry as the store keeps it: header, key and value in one allocation, behind a pointer of eight bytes.
//!
//! A cache is mostly small entries, so what is kept beside key and value decides how many of them a GiB holds,
//! and how many cache lines a look-up touches. The parts follow each other without gaps:
//!
//! | bytes | what |
//! | --- | --- |
//! | 4 | [`AccessStamp`] |
//! | 1 | tag: form of the value (bits 0 to 2), has a time of expiry (3), long key (4), rank (5 to 7) |
//! | 1, or 4 for a long key | length of the key |
//! | 1, 2 or 4 | length of the value, if that is a string |
//! | 8 | time of expiry, if there is one |
//! | | key |
//! | | value: the string, an integer (8 bytes), or the pointer to a collection (8 bytes) |
#![expect(
    unsafe_code,
    reason = "a header and bytes of any length behind one thin pointer can't be had without"
)]

mod shape;

use std::alloc::{self, Layout};
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::num::NonZero;
use std::ptr::NonNull;

use self::shape::{FORM_MASK, Form, HAS_EXPIRY, KEY_LEN_AT, LONG_KEY, RANK_SHIFT, Shape, TAG_AT, WORD};
use super::collections::{Hash, List, Set, SortedSet};
use super::memory::allocation_bytes;
use super::prefetch::prefetch;
use super::value::{AccessStamp, CollectionMut, Text, Value, ValueRef};
use crate::resp::number::Decimal;

/// The bits of a pointer that are an address.
const ADDRESS_MASK: usize = 0x0000_ffff_ffff_fff0;

const _: () = assert!(
    size_of::<usize>() == WORD,
    "the tag is where 64-bit addresses leave room"
);

/// Twenty bits of a key's hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tag(u32);

impl Tag {
    const BITS: u32 = 20;

    /// The tag in a hash.
    #[inline]
    pub(super) fn of(hash: u64) -> Self {
        Self((hash >> (u64::BITS - Self::BITS)) as u32)
    }

    /// A number below `end`, in proportion to the tag; 0 for none.
    #[inline]
    pub(super) fn scaled(self, end: usize) -> usize {
        (self.0 as usize * end) >> Self::BITS
    }
}

/// An entry.
pub struct Stored {
    /// Allocations are aligned to 16 bytes and addresses have 48 bits: the 20 bits around hold the [`Tag`].
    start: NonNull<u8>,
    /// A collection is owned.
    owns: PhantomData<Value>,
}

// SAFETY: it owns what it points to, and that is plain bytes or a collection, which may be sent and shared.
unsafe impl Send for Stored {}
// SAFETY: as above; nothing is changed through a shared reference.
unsafe impl Sync for Stored {}

const _: () = {
    const fn may_be_sent_and_shared<T: Send + Sync>() {}
    may_be_sent_and_shared::<Value>();
};

impl Stored {
    /// The longest key, and the longest string.
    pub const LEN_MAX: usize = u32::MAX as usize;

    /// What an entry with a string takes, as [`super::memory`] counts.
    pub const fn string_cost(key_len: usize, value_len: usize) -> u64 {
        let shape = Shape::new(key_len, Form::of_len(value_len), true);
        allocation_bytes(shape.key_at() + key_len + value_len)
    }

    /// What an entry with a collection takes beside what the collection allocates.
    pub const fn collection_cost(key_len: usize) -> u64 {
        let shape = Shape::new(key_len, Form::Hash, true);
        allocation_bytes(shape.key_at() + key_len + WORD)
    }

    /// An entry with a string.
    ///
    /// # Panics
    ///
    /// When key or string are longer than [`Self::LEN_MAX`].
    #[inline]
    pub(super) fn string(
        key: &[u8],
        text: Text<'_>,
        expires_at_ms: Option<u64>,
        accessed: AccessStamp,
    ) -> Self {
        let len = match text {
            Text::Int(_) => WORD,
            Text::Bytes(bytes) => bytes.len(),
        };
        let mut stored = Self::allocate(key, Form::of(text), len, expires_at_ms, accessed);
        stored.write_text(text);
        stored
    }

    /// An entry with any value.
    pub(super) fn new(key: &[u8], value: Value, expires_at_ms: Option<u64>, accessed: AccessStamp) -> Self {
        let (form, collection) = match value {
            Value::Int(number) => return Self::string(key, Text::Int(number), expires_at_ms, accessed),
            Value::Bytes(bytes) => return Self::string(key, Text::Bytes(&bytes), expires_at_ms, accessed),
            Value::Hash(hash) => (Form::Hash, Box::into_raw(hash).cast::<u8>()),
            Value::List(list) => (Form::List, Box::into_raw(list).cast()),
            Value::Set(set) => (Form::Set, Box::into_raw(set).cast()),
            Value::SortedSet(set) => (Form::SortedSet, Box::into_raw(set).cast()),
        };
        let stored = Self::allocate(key, form, WORD, expires_at_ms, accessed);
        let at = stored.value_at();
        // SAFETY: the value of such an entry is a pointer, and `allocate` made room for it.
        unsafe { stored.write(at, collection) };
        stored
    }

    /// An entry whose value is still to be written: `len` bytes behind the key. Whoever calls this writes it before
    /// anything else happens to the entry.
    #[inline]
    fn allocate(
        key: &[u8],
        form: Form,
        len: usize,
        expires_at_ms: Option<u64>,
        accessed: AccessStamp,
    ) -> Self {
        // Before there is an entry that could be dropped half written.
        let (key_len, len_field) = (narrow(key.len()), narrow(len));
        let shape = Shape::new(key.len(), form, expires_at_ms.is_some());
        let layout = layout(shape.key_at() + key.len() + len);
        // SAFETY: the size is not 0, since the header never is.
        let Some(start) = NonNull::new(unsafe { alloc::alloc(layout) }) else {
            alloc::handle_alloc_error(layout)
        };
        assert_eq!(
            start.addr().get() & !ADDRESS_MASK,
            0,
            "an address has no room for a tag"
        );
        let stored = Self {
            start,
            owns: PhantomData,
        };
        // SAFETY: all of it lies within the header and the key, for which there is room.
        unsafe {
            stored.write(0, accessed);
            stored.write(TAG_AT, shape.tag());
            if shape.long_key {
                stored.write(KEY_LEN_AT, key_len);
            } else {
                stored.write(KEY_LEN_AT, key_len.to_le_bytes()[0]);
            }
            if let Some(expires_at_ms) = expires_at_ms {
                stored.write(shape.expiry_at(), expires_at_ms);
            }
            let key_at = stored.start().add(shape.key_at());
            key_at.copy_from_nonoverlapping(key.as_ptr(), key.len());
        }
        stored.write_len(shape, len_field);
        stored
    }

    /// Notes the length of a string for which there is room.
    #[inline]
    fn write_len(&self, shape: Shape, len: u32) {
        let bytes = len.to_le_bytes();
        let at = shape.value_len_at();
        // SAFETY: the header has so many bytes for the length.
        unsafe {
            match shape.form {
                Form::Bytes8 => self.write(at, bytes[0]),
                Form::Bytes16 => self.write(at, [bytes[0], bytes[1]]),
                Form::Bytes32 => self.write(at, len),
                _ => {}
            }
        }
    }

    /// Writes a string for which there is room.
    #[inline]
    fn write_text(&mut self, text: Text<'_>) {
        let at = self.value_at();
        // SAFETY: the caller allocated an entry of this text's form and length.
        unsafe {
            match text {
                Text::Int(number) => self.write(at, number),
                Text::Bytes(bytes) => {
                    let to = self.start().add(at);
                    to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
                }
            }
        }
    }

    /// The key.
    #[inline]
    pub fn key(&self) -> &[u8] {
        let shape = self.shape();
        // SAFETY: the key was written there with this length.
        unsafe { std::slice::from_raw_parts(self.start().add(shape.key_at()), self.key_len(shape)) }
    }

    /// The value.
    #[inline]
    pub fn value(&self) -> ValueRef<'_> {
        let at = self.value_at();
        // SAFETY: what the form says was written there, and a collection lives as long as its entry.
        unsafe {
            match self.shape().form {
                Form::Bytes8 | Form::Bytes16 | Form::Bytes32 => ValueRef::Bytes(self.string_bytes()),
                Form::Int => ValueRef::Int(self.read(at)),
                Form::Hash => ValueRef::Hash(&*self.read::<*const Hash>(at)),
                Form::List => ValueRef::List(&*self.read::<*const List>(at)),
                Form::Set => ValueRef::Set(&*self.read::<*const Set>(at)),
                Form::SortedSet => ValueRef::SortedSet(&*self.read::<*const SortedSet>(at)),
            }
        }
    }

    /// The value's collection, to change it; `None` for a string.
    pub(super) fn collection_mut(&mut self) -> Option<CollectionMut<'_>> {
        let at = self.value_at();
        // SAFETY: as in `value`; nobody else refers to the collection while the entry is borrowed exclusively.
        unsafe {
            match self.shape().form {
                Form::Bytes8 | Form::Bytes16 | Form::Bytes32 | Form::Int => None,
                Form::Hash => Some(CollectionMut::Hash(&mut *self.read::<*mut Hash>(at))),
                Form::List => Some(CollectionMut::List(&mut *self.read::<*mut List>(at))),
                Form::Set => Some(CollectionMut::Set(&mut *self.read::<*mut Set>(at))),
                Form::SortedSet => Some(CollectionMut::SortedSet(&mut *self.read::<*mut SortedSet>(at))),
            }
        }
    }

    /// Replaces the value by a string, where it is if it has the same length.
    #[inline]
    pub(super) fn set_string(&mut self, text: Text<'_>, expires_at_ms: Option<u64>, accessed: AccessStamp) {
        let shape = self.shape();
        let same_size = match text {
            Text::Int(_) => shape.form == Form::Int,
            Text::Bytes(bytes) => {
                shape.form == Form::of_len(bytes.len()) && self.value_len(shape) == bytes.len()
            }
        };
        if same_size && shape.has_expiry == expires_at_ms.is_some() {
            self.set_accessed(accessed);
            self.overwrite_expiry(expires_at_ms);
            self.write_text(text);
        } else {
            self.replace_with(Self::string(self.key(), text, expires_at_ms, accessed));
        }
    }

    /// Makes the string `len` bytes long, which are then changed by `change`; new ones are 0. A collection stays.
    pub(super) fn edit_string(&mut self, len: usize, change: impl FnOnce(&mut [u8])) {
        let mut bytes = match self.value() {
            ValueRef::Int(number) => Decimal::new(number).as_bytes().to_vec(),
            ValueRef::Bytes(bytes) => {
                let mut buffer = Vec::with_capacity(len.max(bytes.len()));
                buffer.extend_from_slice(bytes);
                buffer
            }
            _ => return,
        };
        bytes.resize(len, 0);
        change(&mut bytes);
        self.set_string(Text::of(&bytes), self.expires_at_ms(), self.accessed());
    }

    /// When the entry ceases to exist, in milliseconds since the Unix epoch.
    #[inline]
    pub fn expires_at_ms(&self) -> Option<u64> {
        let shape = self.shape();
        // SAFETY: the header has a time of expiry where the tag says so.
        shape.has_expiry.then(|| unsafe { self.read(shape.expiry_at()) })
    }

    /// Sets or takes away the time of expiry.
    pub(super) fn set_expires_at_ms(&mut self, expires_at_ms: Option<u64>) {
        if self.shape().has_expiry == expires_at_ms.is_some() {
            self.overwrite_expiry(expires_at_ms);
            return;
        }
        let accessed = self.accessed();
        let text = match self.value() {
            ValueRef::Int(number) => Some(Text::Int(number)),
            ValueRef::Bytes(bytes) => Some(Text::Bytes(bytes)),
            _ => None,
        };
        if let Some(text) = text {
            self.replace_with(Self::string(self.key(), text, expires_at_ms, accessed));
            return;
        }
        let key = Box::<[u8]>::from(self.key());
        // Another entry stands in while the collection moves from the old one to the new one.
        let mut old = Self::string(&[], Text::Int(0), None, accessed);
        old.set_tag(self.tag());
        old.set_rank(self.rank());
        std::mem::swap(self, &mut old);
        self.replace_with(Self::new(&key, old.into_value(), expires_at_ms, accessed));
    }

    /// Takes the place of another entry of the same key, with what is kept for index and eviction.
    #[inline]
    pub(super) fn replace_with(&mut self, mut other: Self) {
        other.set_tag(self.tag());
        other.set_rank(self.rank());
        *self = other;
    }

    /// Writes the time of expiry where there is room for one; does nothing without one.
    #[inline]
    fn overwrite_expiry(&mut self, expires_at_ms: Option<u64>) {
        let shape = self.shape();
        if let (true, Some(expires_at_ms)) = (shape.has_expiry, expires_at_ms) {
            // SAFETY: the header has a time of expiry where the tag says so.
            unsafe { self.write(shape.expiry_at(), expires_at_ms) };
        }
    }

    /// Whether its time is over.
    #[inline]
    pub fn is_expired(&self, now_ms: u64) -> bool {
        self.expires_at_ms().is_some_and(|at_ms| at_ms <= now_ms)
    }

    /// How long ago it was last read or written.
    pub fn idle_ms(&self, now_ms: u64) -> u64 {
        self.accessed().age_ms(now_ms)
    }

    #[inline]
    pub(super) fn accessed(&self) -> AccessStamp {
        // SAFETY: every header begins with a stamp.
        unsafe { self.read(0) }
    }

    #[inline]
    pub(super) fn set_accessed(&mut self, accessed: AccessStamp) {
        // A write would make the cache line this core's own, which reads of a shared key can do without.
        if self.accessed() != accessed {
            // SAFETY: every header begins with a stamp.
            unsafe { self.write(0, accessed) };
        }
    }

    /// A number from 0 to 7 that the eviction policy keeps here.
    #[inline]
    pub(super) fn rank(&self) -> u8 {
        self.header_tag() >> RANK_SHIFT
    }

    #[inline]
    pub(super) fn set_rank(&mut self, rank: u8) {
        let tag = (self.header_tag() & (HAS_EXPIRY | LONG_KEY | FORM_MASK)) | (rank << RANK_SHIFT);
        // SAFETY: every header has a tag, and the shape in it stays what it was.
        unsafe { self.write(TAG_AT, tag) };
    }

    /// What it takes in memory, with everything that its value allocates, as [`super::memory`] counts.
    #[inline]
    pub fn cost(&self) -> u64 {
        let own = allocation_bytes(self.size());
        if self.shape().form.is_collection() {
            own + self.value().heap_bytes()
        } else {
            own
        }
    }

    /// The value by itself.
    pub fn into_value(self) -> Value {
        let at = self.value_at();
        let form = self.shape().form;
        if !form.is_collection() {
            return self.value().to_value();
        }
        let entry = ManuallyDrop::new(self);
        // SAFETY: the pointer was made by `Box::into_raw` for this form; the entry is freed here without it, and
        // used no more.
        unsafe {
            let value = entry.take_collection(form, at);
            alloc::dealloc(entry.start(), layout(entry.size()));
            value
        }
    }

    /// The boxed collection of this form.
    ///
    /// # Safety
    ///
    /// The entry has a collection of that form at `at`, and is not used as one that has it any more.
    unsafe fn take_collection(&self, form: Form, at: usize) -> Value {
        // SAFETY: the caller's promise.
        unsafe {
            match form {
                Form::Hash => Value::Hash(Box::from_raw(self.read(at))),
                Form::List => Value::List(Box::from_raw(self.read(at))),
                Form::Set => Value::Set(Box::from_raw(self.read(at))),
                Form::SortedSet => Value::SortedSet(Box::from_raw(self.read(at))),
                Form::Bytes8 | Form::Bytes16 | Form::Bytes32 | Form::Int => Value::Int(0),
            }
        }
    }

    /// The address of the allocation.
    #[inline]
    fn start(&self) -> *mut u8 {
        self.start.as_ptr().map_addr(|address| address & ADDRESS_MASK)
    }

    /// What [`set_tag`](Self::set_tag) wrote last.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "twenty bits are left")]
    pub(super) fn tag(&self) -> Tag {
        let address = self.start.addr().get();
        Tag((((address >> 48) << 4) | (address & 0xf)) as u32)
    }

    /// Keeps some bits of the key's hash beside the pointer, where a search finds them without a look at the entry.
    #[inline]
    pub(super) fn set_tag(&mut self, tag: Tag) {
        let tag = tag.0 as usize;
        self.start = self.start.map_addr(|address| {
            let tagged = (address.get() & ADDRESS_MASK) | ((tag >> 4) << 48) | (tag & 0xf);
            // An address is not 0 with or without a tag.
            NonZero::new(tagged).unwrap_or(address)
        });
    }

    /// Has the processor fetch header, key and the beginning of the value.
    #[inline]
    pub(super) fn prefetch(&self) {
        const LINE: usize = 64;
        prefetch(self.start());
        prefetch(self.start().wrapping_add(LINE));
    }

    #[inline]
    fn header_tag(&self) -> u8 {
        // SAFETY: every header has one.
        unsafe { self.read(TAG_AT) }
    }

    #[inline]
    fn shape(&self) -> Shape {
        Shape::from_tag(self.header_tag())
    }

    #[inline]
    fn key_len(&self, shape: Shape) -> usize {
        // SAFETY: the header has a length of this width.
        unsafe {
            if shape.long_key {
                self.read::<u32>(KEY_LEN_AT) as usize
            } else {
                self.read::<u8>(KEY_LEN_AT).into()
            }
        }
    }

    /// Bytes behind the key.
    #[inline]
    fn value_len(&self, shape: Shape) -> usize {
        let at = shape.value_len_at();
        // SAFETY: the header has a length of this width.
        unsafe {
            match shape.form {
                Form::Bytes8 => self.read::<u8>(at).into(),
                Form::Bytes16 => u16::from_le_bytes(self.read(at)).into(),
                Form::Bytes32 => self.read::<u32>(at) as usize,
                _ => WORD,
            }
        }
    }

    /// The bytes of a value that is a string, but no integer.
    #[inline]
    fn string_bytes(&self) -> &[u8] {
        let shape = self.shape();
        // SAFETY: so many bytes were written behind the key.
        unsafe {
            std::slice::from_raw_parts(
                self.start().add(shape.key_at() + self.key_len(shape)),
                self.value_len(shape),
            )
        }
    }

    #[inline]
    fn value_at(&self) -> usize {
        let shape = self.shape();
        shape.key_at() + self.key_len(shape)
    }

    #[inline]
    fn size(&self) -> usize {
        self.value_at() + self.value_len(self.shape())
    }

    /// # Safety
    ///
    /// A `T` was written at `at`.
    #[inline]
    unsafe fn read<T: Copy>(&self, at: usize) -> T {
        // SAFETY: the caller's promise; parts follow each other without regard to alignment.
        unsafe { self.start().add(at).cast::<T>().read_unaligned() }
    }

    /// # Safety
    ///
    /// A `T` has room at `at`, and nobody reads there meanwhile.
    #[inline]
    unsafe fn write<T: Copy>(&self, at: usize, value: T) {
        // SAFETY: the caller's promise; parts follow each other without regard to alignment.
        unsafe { self.start().add(at).cast::<T>().write_unaligned(value) };
    }
}

impl Drop for Stored {
    #[inline]
    fn drop(&mut self) {
        let (form, at, size) = (self.shape().form, self.value_at(), self.size());
        // SAFETY: the entry is used no more, and the layout is that of its allocation.
        unsafe {
            if form.is_collection() {
                drop(self.take_collection(form, at));
            }
            alloc::dealloc(self.start(), layout(size));
        }
    }
}

impl std::fmt::Debug for Stored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stored")
            .field("key", &self.key().escape_ascii().to_string())
            .field("value", &self.value())
            .field("expires_at_ms", &self.expires_at_ms())
            .finish_non_exhaustive()
    }
}

/// A length for a header.
///
/// # Panics
///
/// When it is longer than [`Stored::LEN_MAX`]: a shortened length would make memory unsafe.
#[inline]
fn narrow(len: usize) -> u32 {
    let Ok(narrow) = u32::try_from(len) else {
        panic!("a key or value of {len} bytes was not refused")
    };
    narrow
}

/// The layout of an entry of that size.
#[inline]
fn layout(size: usize) -> Layout {
    const ALIGN: usize = 16;
    // The parts' lengths are below 2^32 each, so that this never fails.
    Layout::from_size_align(size, ALIGN).unwrap_or(Layout::new::<u8>())
}

#[cfg(test)]
mod tests;
