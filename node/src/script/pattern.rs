//! Lua's patterns: `%a+`, `[^%s]*`, `(.-)`, `%b()`.
//!
//! Lua's own matcher runs to its end, which with a few `.-` in a row never comes; this one can be stopped. It
//! goes back and forth over the text in the same order, so that it finds the same. Source: the Lua 5.1
//! reference manual, §5.4.1.

/// Captures that a pattern may have.
const CAPTURES_MAX: usize = 32;
/// How many parts of a pattern may wait for the rest of it.
const DEPTH_MAX: usize = 200;
/// Steps between two looks at the clock.
const STEPS: u32 = 10_000;

const ESCAPE: u8 = b'%';

/// Why there is no answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal<E> {
    /// The pattern isn't one.
    Malformed(&'static str),
    /// Whoever was asked said so.
    Stopped(E),
}

/// What a pair of parentheses has matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capture {
    /// The text from here to there.
    Text(usize, usize),
    /// A position.
    Position(usize),
    /// It was not closed.
    Open(usize),
}

/// Matches one pattern against one text.
pub struct Matcher<'a, F> {
    text: &'a [u8],
    pattern: &'a [u8],
    captures: Vec<Capture>,
    depth: usize,
    steps: u32,
    /// Asked now and then whether to go on.
    may_go_on: F,
}

type Matched<T, E> = Result<T, Refusal<E>>;

impl<'a, E, F: FnMut() -> Result<(), E>> Matcher<'a, F> {
    /// Of a pattern without the `^` that it may begin with.
    pub fn new(text: &'a [u8], pattern: &'a [u8], may_go_on: F) -> Self {
        Self {
            text,
            pattern,
            captures: Vec::new(),
            depth: 0,
            steps: STEPS,
            may_go_on,
        }
    }

    /// Where the match that begins at `start` ends, if there is one.
    pub fn match_at(&mut self, start: usize) -> Matched<Option<usize>, E> {
        self.captures.clear();
        self.depth = 0;
        self.matched(start, 0)
    }

    /// The first match that begins at `from` or behind it: where it begins and ends.
    pub fn find(&mut self, from: usize, is_anchored: bool) -> Matched<Option<(usize, usize)>, E> {
        let last = if is_anchored { from } else { self.text.len() };
        for start in from..=last {
            if let Some(end) = self.match_at(start)? {
                return Ok(Some((start, end)));
            }
        }
        Ok(None)
    }

    /// What the last match captured; the whole of it when the pattern has no parentheses.
    pub fn captured(&self, start: usize, end: usize) -> Matched<Vec<Capture>, E> {
        if self
            .captures
            .iter()
            .any(|capture| matches!(capture, Capture::Open(_)))
        {
            return Err(Refusal::Malformed("unfinished capture"));
        }
        if self.captures.is_empty() {
            return Ok(vec![Capture::Text(start, end)]);
        }
        Ok(self.captures.clone())
    }

    /// Whether the pattern has parentheses.
    pub fn has_captures(&self) -> bool {
        !self.captures.is_empty()
    }

    fn step(&mut self) -> Matched<(), E> {
        self.steps -= 1;
        if self.steps == 0 {
            self.steps = STEPS;
            (self.may_go_on)().map_err(Refusal::Stopped)?;
        }
        Ok(())
    }

    fn matched(&mut self, at: usize, from: usize) -> Matched<Option<usize>, E> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(Refusal::Malformed("pattern too complex"));
        }
        let end = self.matched_here(at, from);
        self.depth -= 1;
        end
    }

    /// Matches the pattern from `from` on against the text from `at` on.
    fn matched_here(&mut self, mut at: usize, mut from: usize) -> Matched<Option<usize>, E> {
        loop {
            self.step()?;
            let next = self.pattern.get(from + 1).copied();
            match self.pattern.get(from) {
                None => return Ok(Some(at)),
                Some(b'(') if next == Some(b')') => {
                    return self.captured_from(Capture::Position(at), at, from + 2);
                }
                Some(b'(') => return self.captured_from(Capture::Open(at), at, from + 1),
                Some(b')') => return self.close(at, from + 1),
                Some(b'$') if next.is_none() => return Ok((at == self.text.len()).then_some(at)),
                Some(&ESCAPE) if next == Some(b'b') => match self.balanced(at, from + 2)? {
                    Some(end) => (at, from) = (end, from + 4),
                    None => return Ok(None),
                },
                Some(&ESCAPE) if next == Some(b'f') => {
                    let set = from + 2;
                    if self.pattern.get(set) != Some(&b'[') {
                        return Err(Refusal::Malformed("missing '[' after '%f' in pattern"));
                    }
                    let end = self.class_end(set)?;
                    let before = at.checked_sub(1).map_or(0, |before| self.text[before]);
                    let here = self.text.get(at).copied().unwrap_or(0);
                    if self.in_set(before, set, end - 1) || !self.in_set(here, set, end - 1) {
                        return Ok(None);
                    }
                    from = end;
                }
                Some(&ESCAPE) if next.is_some_and(|next| next.is_ascii_digit()) => {
                    let index = usize::from(next.unwrap_or(b'0')).wrapping_sub(usize::from(b'1'));
                    let Some(Capture::Text(begin, end)) = self.captures.get(index).copied() else {
                        return Err(Refusal::Malformed("invalid capture index"));
                    };
                    if !self.text[at..].starts_with(&self.text[begin..end]) {
                        return Ok(None);
                    }
                    (at, from) = (at + end - begin, from + 2);
                }
                Some(_) => {
                    let end = self.class_end(from)?;
                    let is_match = self.is_single(at, from, end);
                    match self.pattern.get(end) {
                        Some(b'?') => {
                            if is_match && let Some(end) = self.matched(at + 1, end + 1)? {
                                return Ok(Some(end));
                            }
                            from = end + 1;
                        }
                        Some(b'*') => return self.longest(at, from, end),
                        Some(b'+') if is_match => return self.longest(at + 1, from, end),
                        Some(b'-') => return self.shortest(at, from, end),
                        _ if !is_match || self.pattern.get(end) == Some(&b'+') => return Ok(None),
                        _ => (at, from) = (at + 1, end),
                    }
                }
            }
        }
    }

    /// As many of a class as there are, and fewer while the rest doesn't match.
    fn longest(&mut self, at: usize, from: usize, end: usize) -> Matched<Option<usize>, E> {
        let mut count = 0;
        while self.is_single(at + count, from, end) {
            self.step()?;
            count += 1;
        }
        for count in (0..=count).rev() {
            if let Some(end) = self.matched(at + count, end + 1)? {
                return Ok(Some(end));
            }
        }
        Ok(None)
    }

    /// None of a class, and more while the rest doesn't match.
    fn shortest(&mut self, mut at: usize, from: usize, end: usize) -> Matched<Option<usize>, E> {
        loop {
            if let Some(end) = self.matched(at, end + 1)? {
                return Ok(Some(end));
            }
            if !self.is_single(at, from, end) {
                return Ok(None);
            }
            at += 1;
        }
    }

    fn captured_from(&mut self, capture: Capture, at: usize, from: usize) -> Matched<Option<usize>, E> {
        if self.captures.len() >= CAPTURES_MAX {
            return Err(Refusal::Malformed("too many captures"));
        }
        let len = self.captures.len();
        self.captures.push(capture);
        let end = self.matched(at, from)?;
        if end.is_none() {
            self.captures.truncate(len);
        }
        Ok(end)
    }

    fn close(&mut self, at: usize, from: usize) -> Matched<Option<usize>, E> {
        let open = self
            .captures
            .iter()
            .rposition(|capture| matches!(capture, Capture::Open(_)));
        let Some((index, Capture::Open(begin))) = open.map(|index| (index, self.captures[index])) else {
            return Err(Refusal::Malformed("invalid pattern capture"));
        };
        self.captures[index] = Capture::Text(begin, at);
        let end = self.matched(at, from)?;
        if end.is_none() {
            self.captures[index] = Capture::Open(begin);
        }
        Ok(end)
    }

    /// `%bxy`: from an x to the y that belongs to it.
    fn balanced(&mut self, at: usize, pair: usize) -> Matched<Option<usize>, E> {
        let Some(&[open, close]) = self.pattern.get(pair..pair + 2) else {
            return Err(Refusal::Malformed("unbalanced pattern"));
        };
        if self.text.get(at) != Some(&open) {
            return Ok(None);
        }
        let mut depth = 1;
        for end in at + 1..self.text.len() {
            self.step()?;
            if self.text[end] == close {
                depth -= 1;
                if depth == 0 {
                    return Ok(Some(end + 1));
                }
            } else if self.text[end] == open {
                depth += 1;
            }
        }
        Ok(None)
    }

    /// Where the class that begins at `from` ends.
    fn class_end(&self, from: usize) -> Matched<usize, E> {
        match self.pattern[from] {
            ESCAPE if from + 1 < self.pattern.len() => Ok(from + 2),
            ESCAPE => Err(Refusal::Malformed("malformed pattern (ends with '%')")),
            b'[' => {
                const NO_END: &str = "malformed pattern (missing ']')";
                let mut at = from + 1;
                if self.pattern.get(at) == Some(&b'^') {
                    at += 1;
                }
                // A bracket that comes first stands for itself.
                loop {
                    let byte = self.pattern.get(at).ok_or(Refusal::Malformed(NO_END))?;
                    at += if *byte == ESCAPE { 2 } else { 1 };
                    if self.pattern.get(at) == Some(&b']') {
                        return Ok(at + 1);
                    }
                }
            }
            _ => Ok(from + 1),
        }
    }

    fn is_single(&self, at: usize, from: usize, end: usize) -> bool {
        let Some(&byte) = self.text.get(at) else {
            return false;
        };
        match self.pattern[from] {
            b'.' => true,
            ESCAPE => in_class(byte, self.pattern[from + 1]),
            b'[' => self.in_set(byte, from, end - 1),
            other => other == byte,
        }
    }

    /// Whether a byte is in the set whose brackets are at `open` and `close`.
    fn in_set(&self, byte: u8, open: usize, close: usize) -> bool {
        let mut at = open + 1;
        let is_negated = self.pattern[at] == b'^';
        if is_negated {
            at += 1;
        }
        while at < close {
            let first = self.pattern[at];
            let is_range = at + 2 < close && self.pattern[at + 1] == b'-';
            let (is_in, len) = match first {
                ESCAPE => (in_class(byte, self.pattern[at + 1]), 2),
                _ if is_range => ((first..=self.pattern[at + 2]).contains(&byte), 3),
                _ => (first == byte, 1),
            };
            if is_in {
                return !is_negated;
            }
            at += len;
        }
        is_negated
    }
}

/// Whether a byte is in the class of that letter; of no letter's class, it must be the same.
fn in_class(byte: u8, class: u8) -> bool {
    let is_in = match class.to_ascii_lowercase() {
        b'a' => byte.is_ascii_alphabetic(),
        b'c' => byte.is_ascii_control(),
        b'd' => byte.is_ascii_digit(),
        b'l' => byte.is_ascii_lowercase(),
        b'p' => byte.is_ascii_punctuation(),
        b's' => byte.is_ascii_whitespace() || byte == 0x0b,
        b'u' => byte.is_ascii_uppercase(),
        b'w' => byte.is_ascii_alphanumeric(),
        b'x' => byte.is_ascii_hexdigit(),
        b'z' => byte == 0,
        _ => return class == byte,
    };
    is_in != class.is_ascii_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(text: &str, pattern: &str) -> Matched<Option<(usize, usize)>, ()> {
        Matcher::new(text.as_bytes(), pattern.as_bytes(), || Ok(())).find(0, false)
    }

    #[test]
    fn patterns_match_as_in_lua() {
        let table = [
            ("hello", "", Some((0, 0))),
            ("hello", "l+", Some((2, 4))),
            ("hello", "l-o", Some((2, 5))),
            ("hello", "xl?", None),
            ("hello", "hx?e", Some((0, 2))),
            ("hello", "o$", Some((4, 5))),
            ("a$b", "$b", Some((1, 3))),
            ("a.b", "%.", Some((1, 2))),
            ("THE (quick) fox", "%f[%a]%a+$", Some((12, 15))),
            ("a(b(c)d)e", "%b()", Some((1, 8))),
            ("a(b", "%b()", None),
            ("xabcabc", "(abc)%1", Some((1, 7))),
            ("a]b", "[]]", Some((1, 2))),
            ("a]b", "[^]]+", Some((0, 1))),
            ("a-z", "[a%-z]+", Some((0, 3))),
            ("b-", "[a-]+", Some((1, 2))),
            ("x\0y", "%z", Some((1, 2))),
            ("k = v", "(%w+)%s*=%s*(%w+)", Some((0, 5))),
            ("A1_", "%U%D", Some((1, 3))),
            ("ab12", "%a%D", Some((0, 2))),
            ("", "^$", None),
            ("aaa", "a-$", Some((0, 3))),
        ];
        for (text, pattern, expected) in table {
            assert_eq!(find(text, pattern), Ok(expected), "{text:?} {pattern:?}");
        }
        for (pattern, why) in [
            ("%", "malformed pattern (ends with '%')"),
            ("[a", "malformed pattern (missing ']')"),
            ("[", "malformed pattern (missing ']')"),
            ("[^", "malformed pattern (missing ']')"),
            ("[%", "malformed pattern (missing ']')"),
            ("[]", "malformed pattern (missing ']')"),
            ("a)", "invalid pattern capture"),
            ("%f", "missing '[' after '%f' in pattern"),
            ("%b", "unbalanced pattern"),
            ("%bx", "unbalanced pattern"),
            ("%1", "invalid capture index"),
            ("%0", "invalid capture index"),
            ("(%1)", "invalid capture index"),
            (&"(a?)".repeat(33), "too many captures"),
            (&"a?".repeat(1000), "pattern too complex"),
        ] {
            assert_eq!(
                find(&"a".repeat(1000), pattern),
                Err(Refusal::Malformed(why)),
                "{pattern:?}"
            );
        }
    }

    #[test]
    fn what_takes_too_long_is_stopped() {
        let text = "a".repeat(5000);
        let mut asked = 0;
        let mut matcher = Matcher::new(text.as_bytes(), b".-.-.-.-b", || {
            asked += 1;
            if asked < 100 { Ok(()) } else { Err("enough") }
        });
        assert_eq!(matcher.find(0, false), Err(Refusal::Stopped("enough")));
    }

    proptest::proptest! {
        #[test]
        fn any_pattern_is_answered(text in "[ab()\\[\\]%]{0,20}", pattern in "[ab()\\[\\]%^$.*+?fz1\\-]{0,12}") {
            let mut left = 200;
            let go_on = || {
                left -= 1;
                if left > 0 { Ok(()) } else { Err(()) }
            };
            let mut matcher = Matcher::new(text.as_bytes(), pattern.as_bytes(), go_on);
            if let Ok(Some((start, end))) = matcher.find(0, false) {
                assert!(start <= end && end <= text.len());
                if let Ok(captures) = matcher.captured(start, end) {
                    assert!(!captures.is_empty());
                }
            }
        }
    }
}
