//! Slots of keys as a Redis server computes them: `vectors.csv` is what `CLUSTER KEYSLOT` of redis-server 7.0 said.

use annulus_ring::Slot;

#[test]
fn slots_are_those_of_redis() {
    let mut compared = 0;
    for line in include_str!("vectors.csv")
        .lines()
        .filter(|line| !line.starts_with('#'))
    {
        let (hex, slot) = line.split_once(',').unwrap();
        let key: Vec<u8> = (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect();
        assert_eq!(
            Slot::for_key(&key).number(),
            slot.parse::<u16>().unwrap(),
            "key {key:?}"
        );
        compared += 1;
    }
    assert!(compared >= 100, "only {compared} vectors");
}
