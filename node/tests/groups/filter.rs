use annulus_proto::groups::Filter;

use crate::origin::{Mode, Origin};
use crate::world::{World, bulk, described, wait_for};

fn filter(origin: &Origin) -> Filter {
    Filter {
        keys_url: format!("http://{}/keys", origin.addr),
        refresh_ms: 600_000,
        false_positives_per_million: 1000,
        keys_max: 1000,
    }
}

fn list(keys: usize) -> String {
    let keys: Vec<String> = (0..keys).map(|number| number.to_string()).collect();
    keys.join("\n")
}

#[test]
fn what_is_not_in_the_list_is_not_asked_for() {
    let world = World::without_groups(Origin::start());
    let list = list(100);
    world.origin.set(Mode::Text(list));
    let mut group = described(&world.origin);
    group.filter = Some(filter(&world.origin));
    world.follow(1, Vec::new(), vec![group]);
    let group = world.group();
    wait_for("the list is read", || {
        group.filter_figures().is_some_and(|(keys, _)| keys == 100)
    });
    world.origin.set(Mode::Answer);
    let mut client = world.connect();
    client.check("GET user:7", bulk("value-of-/u/7-1"));
    for number in 1000..2000 {
        let reply = client.ask(&format!("GET user:{number}"));
        assert!(reply == "$-1\r\n" || reply.contains("value"), "{reply}");
    }
    // One of a thousand is expected.
    let asked = world.origin.asked_in_all() - 2;
    assert!(asked < 10, "{asked}");
    assert_eq!(group.counters().filtered.get(), 1000 - asked);
    // Something new, of which the application says so.
    client.check("DEL user:5000", ":0\r\n");
    client.check("GET user:5000", bulk("value-of-/u/5000-1"));
}

#[test]
fn without_a_list_everything_is_asked_for() {
    let world = World::without_groups(Origin::start());
    let mut group = described(&world.origin);
    group.filter = Some(filter(&world.origin));
    // One line too many.
    let list = list(1001);
    world.origin.set(Mode::Text(list));
    world.follow(1, Vec::new(), vec![group]);
    wait_for("the list is asked for", || world.origin.asked("/keys") > 0);
    world.origin.set(Mode::Answer);
    world.connect().check("GET user:5000", bulk("value-of-/u/5000-1"));
    assert_eq!(world.group().filter_figures(), None);
}
