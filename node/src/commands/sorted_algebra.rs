//! Commands that intersect, unite and subtract sorted sets, and sets whose members count as having score 1.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use crate::commands::elements::counted_keys;
use crate::commands::is_word;
use crate::commands::set_algebra::limit_option;
use crate::commands::sorted_ranges::store;
use crate::commands::sorted_sets::{write_members_head, write_scored};
use crate::error::{CommandError, Outcome};
use crate::execute::Keyed;
use crate::resp::Args;
use crate::resp::number::parse_score;
use crate::store::collections::{Set, SortedSet, compare};
use crate::store::{SlotGuard, Stored, ValueRef, WrongType};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Intersect,
    Unite,
    Subtract,
}

/// What becomes of several scores of a member.
#[derive(Debug, Clone, Copy)]
enum Aggregate {
    Sum,
    Min,
    Max,
}

impl Aggregate {
    fn of(self, a: f64, b: f64) -> f64 {
        match self {
            // Infinities of both signs make 0.
            Self::Sum => number_or_zero(a + b),
            // Of zeros with different signs the first stays.
            Self::Min if b < a => b,
            Self::Max if b > a => b,
            Self::Min | Self::Max => a,
        }
    }
}

fn number_or_zero(score: f64) -> f64 {
    if score.is_nan() { 0.0 } else { score }
}

/// What is at a key.
#[derive(Clone, Copy)]
enum Input<'a> {
    None,
    Set(&'a Set),
    SortedSet(&'a SortedSet),
}

impl<'a> Input<'a> {
    fn of(stored: Option<&'a Stored>) -> Result<Self, WrongType> {
        match stored.map(Stored::value) {
            None => Ok(Self::None),
            Some(ValueRef::Set(set)) => Ok(Self::Set(set)),
            Some(ValueRef::SortedSet(set)) => Ok(Self::SortedSet(set)),
            Some(_) => Err(WrongType),
        }
    }

    fn len(self) -> usize {
        match self {
            Self::None => 0,
            Self::Set(set) => set.len(),
            Self::SortedSet(set) => set.len(),
        }
    }

    fn score(self, member: &[u8]) -> Option<f64> {
        match self {
            Self::None => None,
            Self::Set(set) => set.contains(member).then_some(1.0),
            Self::SortedSet(set) => set.score(member),
        }
    }

    fn iter(self) -> impl Iterator<Item = (&'a [u8], f64)> {
        let (set, sorted_set) = match self {
            Self::None => (None, None),
            Self::Set(set) => (Some(set), None),
            Self::SortedSet(set) => (None, Some(set)),
        };
        let members = set.into_iter().flat_map(Set::iter).map(|member| (member, 1.0));
        members.chain(sorted_set.into_iter().flat_map(SortedSet::iter))
    }
}

/// The inputs at the keys. All of them are looked at before the command's other arguments.
fn inputs<'a, 'k>(
    slot: &'a mut SlotGuard<'_>,
    keys: impl Iterator<Item = &'k [u8]> + Clone,
    now_ms: u64,
) -> Result<Vec<Input<'a>>, CommandError> {
    for key in keys.clone() {
        Input::of(slot.read(key, now_ms))?;
    }
    let mut inputs = Vec::new();
    for key in keys {
        inputs.push(Input::of(slot.peek(key, now_ms))?);
    }
    Ok(inputs)
}

struct Options {
    weights: Vec<f64>,
    aggregate: Aggregate,
    with_scores: bool,
}

impl Options {
    /// Reads what is behind the keys.
    fn parse(args: Args<'_>, keys: usize, operation: Operation, stores: bool) -> Result<Self, CommandError> {
        let mut options = Self {
            weights: vec![1.0; keys],
            aggregate: Aggregate::Sum,
            with_scores: false,
        };
        let mut words = args.from(0);
        let combines = operation != Operation::Subtract;
        while let Some(word) = words.next() {
            if combines && is_word(word, "WEIGHTS") && words.len() >= keys {
                for weight in &mut options.weights {
                    *weight = words
                        .next()
                        .and_then(parse_score)
                        .ok_or(CommandError::Fixed("ERR weight value is not a float"))?;
                }
            } else if combines && is_word(word, "AGGREGATE") && words.len() >= 1 {
                options.aggregate = match words.next() {
                    Some(word) if is_word(word, "SUM") => Aggregate::Sum,
                    Some(word) if is_word(word, "MIN") => Aggregate::Min,
                    Some(word) if is_word(word, "MAX") => Aggregate::Max,
                    _ => return Err(CommandError::Syntax),
                };
            } else if !stores && is_word(word, "WITHSCORES") {
                options.with_scores = true;
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(options)
    }
}

/// Members and scores, in no order.
fn compute<'a>(operation: Operation, inputs: &[Input<'a>], options: &Options) -> Vec<(&'a [u8], f64)> {
    if operation == Operation::Subtract {
        let Some((first, rest)) = inputs.split_first() else {
            return Vec::new();
        };
        let is_left = |(member, _): &(&[u8], f64)| rest.iter().all(|input| input.score(member).is_none());
        return first.iter().filter(is_left).collect();
    }
    // From the smallest to the largest: sums of more than two scores depend on the order.
    let mut weighted: Vec<_> = inputs
        .iter()
        .copied()
        .zip(options.weights.iter().copied())
        .collect();
    weighted.sort_by_key(|(input, _)| input.len());
    if operation == Operation::Intersect {
        let Some(((smallest, weight), rest)) = weighted.split_first() else {
            return Vec::new();
        };
        return smallest
            .iter()
            .filter_map(|(member, score)| {
                let first = number_or_zero(weight * score);
                let combined = rest.iter().try_fold(first, |combined, (input, weight)| {
                    let score = input.score(member)?;
                    // No number here is left to the aggregation, other than in unions.
                    Some(options.aggregate.of(combined, weight * score))
                })?;
                Some((member, combined))
            })
            .collect();
    }
    let mut scores: HashMap<&[u8], f64, RandomState> = HashMap::default();
    for (input, weight) in weighted {
        for (member, score) in input.iter() {
            let score = number_or_zero(weight * score);
            scores
                .entry(member)
                .and_modify(|combined| *combined = options.aggregate.of(*combined, score))
                .or_insert(score);
        }
    }
    scores.into_iter().collect()
}

/// Runs `[destination] numkeys key [key …] [words …]`; the argument at `at` counts the keys.
fn run(call: &mut Keyed<'_, '_>, operation: Operation, at: usize) -> Outcome {
    let (args, stores) = (call.args, at > 1);
    let keys = counted_keys(args, at);
    let count = keys.len();
    let inputs = inputs(call.slot, keys, call.now_ms)?;
    let options = Options::parse(args.skip(at + 1 + count), count, operation, stores)?;
    let mut result = compute(operation, &inputs, &options);
    if stores {
        let result = result.into_iter().collect();
        return store(call, result);
    }
    result.sort_by(|a, b| compare(*a, *b));
    write_members_head(result.len(), options.with_scores, call.reply);
    for (member, score) in result {
        if options.with_scores {
            write_scored(member, score, call.reply);
        } else {
            call.reply.bulk(member);
        }
    }
    Ok(())
}

/// `ZUNION numkeys key [key …] [WEIGHTS weight …] [AGGREGATE SUM | MIN | MAX] [WITHSCORES]`
pub fn zunion(call: &mut Keyed<'_, '_>) -> Outcome {
    run(call, Operation::Unite, 1)
}

/// `ZINTER numkeys key [key …] [WEIGHTS weight …] [AGGREGATE SUM | MIN | MAX] [WITHSCORES]`
pub fn zinter(call: &mut Keyed<'_, '_>) -> Outcome {
    run(call, Operation::Intersect, 1)
}

/// `ZDIFF numkeys key [key …] [WITHSCORES]`
pub fn zdiff(call: &mut Keyed<'_, '_>) -> Outcome {
    run(call, Operation::Subtract, 1)
}

/// `ZUNIONSTORE destination numkeys key [key …] [WEIGHTS weight …] [AGGREGATE SUM | MIN | MAX]`
pub fn zunionstore(call: &mut Keyed<'_, '_>) -> Outcome {
    run(call, Operation::Unite, 2)
}

/// `ZINTERSTORE destination numkeys key [key …] [WEIGHTS weight …] [AGGREGATE SUM | MIN | MAX]`
pub fn zinterstore(call: &mut Keyed<'_, '_>) -> Outcome {
    run(call, Operation::Intersect, 2)
}

/// `ZDIFFSTORE destination numkeys key [key …]`
pub fn zdiffstore(call: &mut Keyed<'_, '_>) -> Outcome {
    run(call, Operation::Subtract, 2)
}

/// `ZINTERCARD numkeys key [key …] [LIMIT limit]`
pub fn zintercard(call: &mut Keyed<'_, '_>) -> Outcome {
    let keys = counted_keys(call.args, 1);
    let after_keys = 2 + keys.len();
    let args = call.args;
    let inputs = inputs(call.slot, keys, call.now_ms)?;
    let limit = limit_option(args, after_keys)?;
    let smallest = inputs.iter().min_by_key(|input| input.len());
    let is_everywhere = |(member, _): &(&[u8], f64)| inputs.iter().all(|input| input.score(member).is_some());
    let common = smallest.into_iter().flat_map(|input| input.iter());
    let count = common.filter(is_everywhere).take(limit).count();
    call.reply.count(count);
    Ok(())
}
