//! Commands on ranges of a sorted set: by rank, by score, or by the members' bytes among equal scores.

use crate::commands::elements::read;
use crate::commands::lists;
use crate::commands::sorted_sets::{write_members_head, write_scored};
use crate::commands::{integer, is_word};
use crate::error::{CommandError, Outcome};
use crate::execute::Keyed;
use crate::resp::number::parse_f64;
use crate::store::Collection;
use crate::store::collections::SortedSet;

/// What a range's ends are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Rank,
    Score,
    Lex,
}

/// An end of a range of scores.
#[derive(Debug, Clone, Copy)]
struct ScoreEnd {
    score: f64,
    is_excluded: bool,
}

impl ScoreEnd {
    fn parse(text: &[u8]) -> Result<Self, CommandError> {
        let (text, is_excluded) = match text.strip_prefix(b"(") {
            Some(text) => (text, true),
            None => (text, false),
        };
        // No number at all means 0.
        let score = if text.is_empty() {
            Some(0.0)
        } else {
            parse_f64(text)
        };
        match score {
            Some(score) => Ok(Self { score, is_excluded }),
            None => Err(CommandError::Fixed("ERR min or max is not a float")),
        }
    }
}

/// An end of a range of members.
#[derive(Debug, Clone, Copy)]
enum LexEnd<'a> {
    /// Before all.
    Lowest,
    /// Behind all.
    Highest,
    Member {
        member: &'a [u8],
        is_excluded: bool,
    },
}

impl<'a> LexEnd<'a> {
    fn parse(text: &'a [u8]) -> Result<Self, CommandError> {
        match text {
            b"-" => Ok(Self::Lowest),
            b"+" => Ok(Self::Highest),
            [kind @ (b'[' | b'('), member @ ..] => Ok(Self::Member {
                member,
                is_excluded: *kind == b'(',
            }),
            _ => Err(CommandError::Fixed("ERR min or max not valid string range item")),
        }
    }

    /// Whether a member comes before a range that begins here.
    fn is_before_start(self, found: &[u8]) -> bool {
        match self {
            Self::Lowest => false,
            Self::Highest => true,
            Self::Member { member, is_excluded } => found < member || is_excluded && found == member,
        }
    }

    /// Whether a member comes before the end of a range that ends here.
    fn is_before_end(self, found: &[u8]) -> bool {
        match self {
            Self::Lowest => false,
            Self::Highest => true,
            Self::Member { member, is_excluded } => found < member || !is_excluded && found == member,
        }
    }
}

/// A range, from its lower end to its upper one.
#[derive(Debug, Clone, Copy)]
enum Bounds<'a> {
    /// Both included, counted from the end when negative, and in the order that the elements are returned in.
    Rank(i64, i64),
    Score(ScoreEnd, ScoreEnd),
    Lex(LexEnd<'a>, LexEnd<'a>),
}

impl<'a> Bounds<'a> {
    fn parse(by: By, low: &'a [u8], high: &'a [u8]) -> Result<Self, CommandError> {
        Ok(match by {
            By::Rank => Self::Rank(integer(low)?, integer(high)?),
            By::Score => Self::Score(ScoreEnd::parse(low)?, ScoreEnd::parse(high)?),
            By::Lex => Self::Lex(LexEnd::parse(low)?, LexEnd::parse(high)?),
        })
    }

    /// The rank of the first element and of the one behind the last.
    fn ranks(self, set: &SortedSet, reversed: bool) -> (usize, usize) {
        let (start, end) = match self {
            Self::Rank(start, end) => {
                let (start, end) = lists::range(start, end, set.len());
                if reversed {
                    (set.len() - end, set.len() - start)
                } else {
                    (start, end)
                }
            }
            Self::Score(low, high) => (
                set.partition_point(|_, score| score < low.score || low.is_excluded && score <= low.score),
                set.partition_point(|_, score| {
                    score < high.score || !high.is_excluded && score <= high.score
                }),
            ),
            Self::Lex(low, high) => (
                set.partition_point(|member, _| low.is_before_start(member)),
                set.partition_point(|member, _| high.is_before_end(member)),
            ),
        };
        (start, end.max(start))
    }
}

/// What the `ZRANGE` family returns.
struct Query<'a> {
    bounds: Bounds<'a>,
    reversed: bool,
    with_scores: bool,
    /// How many elements of the range to pass over; `None` for all.
    offset: Option<usize>,
    count: usize,
}

/// What a command's name says already.
#[derive(Debug, Clone, Copy)]
struct Fixed {
    by: Option<By>,
    reversed: Option<bool>,
    stores: bool,
}

impl<'a> Query<'a> {
    /// Reads `start stop [words …]` from that argument on.
    fn parse(call: &Keyed<'a, '_>, first: usize, fixed: Fixed) -> Result<Self, CommandError> {
        let mut by = fixed.by;
        let mut reversed = fixed.reversed;
        let mut with_scores = false;
        let mut limit = (0, -1);
        let mut words = call.args.from(first + 2);
        while let Some(word) = words.next() {
            if is_word(word, "WITHSCORES") && !fixed.stores {
                with_scores = true;
            } else if is_word(word, "LIMIT") && words.len() >= 2 {
                let (Some(offset), Some(count)) = (words.next(), words.next()) else {
                    return Err(CommandError::Syntax);
                };
                limit = (integer(offset)?, integer(count)?);
            } else if is_word(word, "REV") && fixed.reversed.is_none() {
                reversed = Some(true);
            } else if is_word(word, "BYLEX") && fixed.by.is_none() {
                by = Some(By::Lex);
            } else if is_word(word, "BYSCORE") && fixed.by.is_none() {
                by = Some(By::Score);
            } else {
                return Err(CommandError::Syntax);
            }
        }
        let (by, reversed) = (by.unwrap_or(By::Rank), reversed.unwrap_or(false));
        if limit.1 != -1 && by == By::Rank {
            return Err(CommandError::Fixed(
                "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX",
            ));
        }
        if with_scores && by == By::Lex {
            return Err(CommandError::Fixed(
                "ERR syntax error, WITHSCORES not supported in combination with BYLEX",
            ));
        }
        let (start, end) = (call.args.at(first), call.args.at(first + 1));
        // A reversed range is given from its upper end to its lower one; ranks count from the upper end then.
        let bounds = if reversed && by != By::Rank {
            Bounds::parse(by, end, start)?
        } else {
            Bounds::parse(by, start, end)?
        };
        let is_limited = by != By::Rank;
        Ok(Self {
            bounds,
            reversed,
            with_scores,
            offset: usize::try_from(if is_limited { limit.0 } else { 0 }).ok(),
            count: usize::try_from(limit.1).unwrap_or(usize::MAX),
        })
    }

    /// The elements in the order to return them in.
    fn find<'s>(&self, set: &'s SortedSet) -> Vec<(&'s [u8], f64)> {
        let (start, end) = self.bounds.ranks(set, self.reversed);
        let Some(offset) = self.offset else {
            return Vec::new();
        };
        let offset = offset.min(end - start);
        let count = self.count.min(end - start - offset);
        if self.reversed {
            set.iter_back_from(end - offset).take(count).collect()
        } else {
            set.iter_from(start + offset).take(count).collect()
        }
    }
}

fn range(call: &mut Keyed<'_, '_>, by: Option<By>, reversed: Option<bool>) -> Outcome {
    let stores = false;
    let query = Query::parse(call, 2, Fixed { by, reversed, stores })?;
    let set = read::<SortedSet>(call.slot, call.args.at(1), call.now_ms)?;
    let found = set.map_or_else(Vec::new, |set| query.find(set));
    write_members_head(found.len(), query.with_scores, call.reply);
    for (member, score) in found {
        if query.with_scores {
            write_scored(member, score, call.reply);
        } else {
            call.reply.bulk(member);
        }
    }
    Ok(())
}

/// `ZRANGE key start stop [BYSCORE | BYLEX] [REV] [LIMIT offset count] [WITHSCORES]`
pub fn zrange(call: &mut Keyed<'_, '_>) -> Outcome {
    range(call, None, None)
}

/// `ZREVRANGE key start stop [WITHSCORES]`
pub fn zrevrange(call: &mut Keyed<'_, '_>) -> Outcome {
    range(call, Some(By::Rank), Some(true))
}

/// `ZRANGEBYSCORE key min max [WITHSCORES] [LIMIT offset count]`
pub fn zrangebyscore(call: &mut Keyed<'_, '_>) -> Outcome {
    range(call, Some(By::Score), Some(false))
}

/// `ZREVRANGEBYSCORE key max min [WITHSCORES] [LIMIT offset count]`
pub fn zrevrangebyscore(call: &mut Keyed<'_, '_>) -> Outcome {
    range(call, Some(By::Score), Some(true))
}

/// `ZRANGEBYLEX key min max [LIMIT offset count]`
pub fn zrangebylex(call: &mut Keyed<'_, '_>) -> Outcome {
    range(call, Some(By::Lex), Some(false))
}

/// `ZREVRANGEBYLEX key max min [LIMIT offset count]`
pub fn zrevrangebylex(call: &mut Keyed<'_, '_>) -> Outcome {
    range(call, Some(By::Lex), Some(true))
}

/// `ZRANGESTORE destination source start stop [BYSCORE | BYLEX] [REV] [LIMIT offset count]`
pub fn zrangestore(call: &mut Keyed<'_, '_>) -> Outcome {
    let fixed = Fixed {
        by: None,
        reversed: None,
        stores: true,
    };
    let query = Query::parse(call, 3, fixed)?;
    let set = read::<SortedSet>(call.slot, call.args.at(2), call.now_ms)?;
    let mut found = SortedSet::default();
    for (member, score) in set.into_iter().flat_map(|set| query.find(set)) {
        found.insert(member, score);
    }
    store(call, found)
}

/// Puts a sorted set at the first argument, or nothing if it is empty, and answers how large it is.
pub(super) fn store(call: &mut Keyed<'_, '_>, set: SortedSet) -> Outcome {
    let (to, len) = (call.args.at(1), set.len());
    if len == 0 {
        call.slot.remove(to, call.now_ms);
    } else {
        call.slot.set(to, set.into_value(), None, call.now_ms)?;
    }
    call.reply.count(len);
    Ok(())
}

fn count(call: &mut Keyed<'_, '_>, by: By) -> Outcome {
    let bounds = Bounds::parse(by, call.args.at(2), call.args.at(3))?;
    let set = read::<SortedSet>(call.slot, call.args.at(1), call.now_ms)?;
    let (start, end) = set.map_or((0, 0), |set| bounds.ranks(set, false));
    call.reply.count(end - start);
    Ok(())
}

/// `ZCOUNT key min max`
pub fn zcount(call: &mut Keyed<'_, '_>) -> Outcome {
    count(call, By::Score)
}

/// `ZLEXCOUNT key min max`
pub fn zlexcount(call: &mut Keyed<'_, '_>) -> Outcome {
    count(call, By::Lex)
}

fn remove(call: &mut Keyed<'_, '_>, by: By) -> Outcome {
    let bounds = Bounds::parse(by, call.args.at(2), call.args.at(3))?;
    let removed = call
        .slot
        .update(call.args.at(1), call.now_ms, |set: &mut SortedSet| {
            let (start, end) = bounds.ranks(set, false);
            set.remove_range(start, end);
            end - start
        })?;
    call.reply.count(removed);
    Ok(())
}

/// `ZREMRANGEBYRANK key start stop`
pub fn zremrangebyrank(call: &mut Keyed<'_, '_>) -> Outcome {
    remove(call, By::Rank)
}

/// `ZREMRANGEBYSCORE key min max`
pub fn zremrangebyscore(call: &mut Keyed<'_, '_>) -> Outcome {
    remove(call, By::Score)
}

/// `ZREMRANGEBYLEX key min max`
pub fn zremrangebylex(call: &mut Keyed<'_, '_>) -> Outcome {
    remove(call, By::Lex)
}
