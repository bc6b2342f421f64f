//! How old an answer is by its own word: told to the judge before the program has all of it.

use crate::net;
use crate::world::World;
use boundary::Event;
use boundary::limits::DATED_BYTES_MAX;
use types::AsOf;

const LAST_YEAR: AsOf = AsOf::At(1_735_689_599_000);

/// What the judge was told of the age of one answer, and the answer's status and length.
async fn told(host: &str, request: &[u8]) -> (Vec<AsOf>, u16, usize) {
    let world = World::start().await;
    let reply = net::http(&world, host, request).await.expect("an answer");
    // No waiting: it was told before the program had the answer.
    let seen = world.judge.seen.lock().unwrap();
    let dated = seen.events.iter().filter_map(|(_, event)| match event {
        Event::Dated { as_of } => Some(*as_of),
        _ => None,
    });
    (dated.collect(), reply.status, reply.body.len())
}

#[tokio::test]
async fn an_answer_says_how_old_it_is_by_its_body_or_a_header() {
    let text = r#"{"at":"2024-12-31T23:59:59Z"}"#.len();
    let get = |host: &str, path: &str| net::get(host, path);
    let check = |host: &'static str, request: Vec<u8>, expected: (Vec<AsOf>, u16, usize)| async move {
        let got = told(host, &request).await;
        assert_eq!(got, expected, "{host} {}", String::from_utf8_lossy(&request));
    };
    check("ok.test", get("ok.test", "/dated/fresh"), (vec![LAST_YEAR], 200, text)).await;
    check("ok.test", get("ok.test", "/dated/silent"), (vec![AsOf::Unreadable], 200, 2)).await;
    check("ok.test", get("ok.test", "/dated/encoded"), (vec![AsOf::Unreadable], 200, text)).await;
    check("plain.ok.test", get("plain.ok.test", "/dated/fresh"), (vec![LAST_YEAR], 200, text))
        .await;
    // What brings nothing has no age, and only a GET fetches.
    check("ok.test", get("ok.test", "/dated/gone"), (vec![], 404, text)).await;
    check("ok.test", net::post("ok.test", "/dated/fresh", "", "x"), (vec![], 200, text)).await;
    check("ok.test", get("ok.test", "/"), (vec![], 200, 4)).await;
}

#[tokio::test]
async fn an_answer_is_read_for_its_age_up_to_a_limit_and_passes_whole() {
    for (path, bytes, expected) in [
        ("/dated/most", DATED_BYTES_MAX, LAST_YEAR),
        ("/dated/more", DATED_BYTES_MAX + 1, AsOf::Unreadable),
    ] {
        let got = told("ok.test", &net::get("ok.test", path)).await;
        assert_eq!(got, (vec![expected], 200, bytes), "{path}");
    }
}
