//! Tickets, the waiting room and the challenge, with code and without.

use super::*;

#[tokio::test]
async fn a_ticket_opens_what_it_names() {
    let door = Door::open().await;
    door.create("one").await;
    door.on_air("one", 1_000);
    let answer = door.send(Method::POST, "/api/events/one/ticket", None, "whatever").await.expect(200);
    assert_eq!(answer.header("cache-control"), "no-store");
    let json = answer.json();
    let ticket = json["ticket"].as_str().unwrap();
    assert_eq!(json["push"], format!("http://talk.example:8081/t/{ticket}/live/one/"));
    assert_eq!(json["hls"], format!("http://talk.example:8083/t/{ticket}/live/one/index.m3u8"));
    assert_eq!(json["tier"], 1);
    let keys = Keys::open(&door.directory.path().join("keys")).unwrap().tickets().unwrap();
    let cell = admission::ticket::Cell(0);
    let checked = keys.check(ticket, &"one".parse().unwrap(), cell, backend::clock::unix_now()).unwrap();
    assert_eq!(json["expires"], checked.expires.to_string());
    let other = door.send(Method::POST, "/api/events/one/ticket", None, "").await.json();
    assert_ne!(other["ticket"], json["ticket"]);
    door.send(Method::POST, "/api/events/none/ticket", None, "").await.expect(404);
    door.get("/api/events/one/ticket").await.expect(405);

    let request = Request::post("/api/events/one/ticket").header("origin", "https://other.example");
    let answer = door.request(request.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.header("access-control-allow-origin"), "*");
}

#[tokio::test]
async fn who_finds_no_seat_has_a_place_and_comes_in_with_it() {
    let door = Door::open().await;
    let created = door.create("one").await;
    let ask = async |body: &Value| {
        let request = Request::post("/api/events/one/ticket").header("content-type", "application/json");
        door.request(request.body(body.to_string().into()).unwrap()).await
    };
    let queue = async || door.get("/api/events/one/queue.json").await.expect(200);

    // Before doors everybody takes part in the draw, whatever room there is.
    assert_eq!(queue().await.json()["state"], "gathering");
    let early = ask(&json!({})).await.expect(202);
    let seconds: u64 = early.header("retry-after").parse().unwrap();
    let early = early.json();
    assert_eq!(
        (&early["early"], &early["place"], &early["low_s"]),
        (&json!(true), &Value::Null, &Value::Null)
    );
    assert!((1..=15).contains(&seconds) && early["retry_after"] == seconds, "{early}");
    let token = &early["token"];
    let commitment = door.get("/api/events/one/draw/commitment.json").await.expect(200).json();
    assert_eq!(commitment["held"], false);
    door.get("/api/events/one/draw/page.json").await.expect(404);

    // Doors, without a seat: who came early and who comes now wait, and are told when nothing is known.
    door.on_air("one", 0);
    let early = ask(&json!({ "token": token })).await.expect(202).json();
    assert_eq!((&early["place"], &early["state"]), (&json!(1), &json!("still")), "{early}");
    let late = ask(&json!({})).await.expect(202).json();
    assert_eq!((&late["early"], &late["line"]), (&json!(false), &json!(1)), "{late}");
    door.on_air("one", 0);
    let answer = queue().await;
    assert_eq!(answer.header("cache-control"), "public, max-age=1");
    assert_eq!((&answer.json()["waiting"], &answer.json()["admitted"]), (&json!(2), &json!(0)));
    // A host never waits, and a ticket is renewed whatever happens.
    let host = Door::host_of(&created);
    let hosts = door.send(Method::POST, "/api/events/one/ticket", Some(&host), "").await.expect(200).json();
    let again = ask(&json!({ "ticket": hosts["ticket"] })).await.expect(200).json();
    let keys = Keys::open(&door.directory.path().join("keys")).unwrap().tickets().unwrap();
    let now = backend::clock::unix_now();
    let of = |view: &Value| {
        let text = view["ticket"].as_str().unwrap();
        keys.check(text, &"one".parse().unwrap(), admission::ticket::Cell(0), now).unwrap()
    };
    assert_eq!((of(&hosts).id, of(&hosts).class), (of(&again).id, admission::ticket::Class::Host));

    // Two seats: both come in, each copy of a token as the same.
    door.on_air("one", 1_000);
    let first = ask(&json!({ "token": token })).await.expect(200).json();
    let copy = ask(&json!({ "token": token })).await.expect(200).json();
    assert_eq!(of(&first).id, of(&copy).id);
    assert_ne!(of(&first).id, of(&ask(&json!({ "token": late["token"] })).await.expect(200).json()).id);
    // Everybody can check the draw.
    let record = door.get("/api/events/one/draw/record.json").await.expect(200).json();
    let page = door.get("/api/events/one/draw/page.json").await.expect(200).json();
    let record: admission::room::DrawRecord = serde_json::from_value(record).unwrap();
    let page = serde_json::from_value(page).unwrap();
    let commitment = serde_json::from_value(commitment["commitment"].clone()).unwrap();
    let head = record.ledger_head;
    assert_eq!(admission::room::verify_draw(&record, &page, &commitment, &head, &[]), Ok(()));
    assert_eq!(door.get("/api/events/one/draw/heavy-0.json").await.expect(200).json(), json!([]));
    door.get("/api/events/one/draw/heavy-1.json").await.expect(404);

    // A ticket that is revoked cannot be renewed.
    let revoke = async |token: Option<&str>, body: &Value| {
        door.send(Method::POST, "/api/events/one/revocations", token, body.to_string()).await
    };
    let ticket = json!({ "ticket": first["ticket"] });
    revoke(None, &ticket).await.expect(401);
    revoke(Some(&host), &json!({})).await.expect(422);
    revoke(Some(&host), &json!({ "ticket": "forged" })).await.expect(422);
    ask(&ticket).await.expect(200);
    revoke(Some(&host), &ticket).await.expect(204);
    ask(&ticket).await.expect(403);
    let limits = door.control.sessions().limits(backend::clock::unix_now());
    assert_eq!(limits.revoked, [of(&first).id]);

    // What is no token is said to be none.
    ask(&json!({ "token": "forged" })).await.expect(403);
    ask(&json!({ "ticket": "forged" })).await.expect(403);
    assert_eq!(ask(&json!({ "token": 1, "hat": "x" })).await.expect(422).refused(), ["token", "hat"]);
    let metrics = door.get("/metrics").await.expect(200).text();
    assert!(metrics.contains("minassa_tokens_refused_total 3\n"), "{metrics}");
    assert!(metrics.contains("minassa_room_admitted{event=\"one\"} 2\n"), "{metrics}");
}

#[tokio::test]
async fn without_code_the_room_is_a_page_that_reloads() {
    let door = Door::open().await;
    door.create("one").await;
    let browse = async |cookie: &str| {
        let request =
            Request::get("/e/one?plain&lang=en").header("host", "talk.example:8080").header("cookie", cookie);
        door.request(request.body(Body::empty()).unwrap()).await.expect(200)
    };
    door.on_air("one", 0);
    let waits = browse("").await;
    assert!(
        waits.text().contains("People ahead of you: 1") && waits.text().contains("http-equiv"),
        "{}",
        waits.text()
    );
    assert_eq!(waits.header("cache-control"), "no-store");
    let cookie = waits.header("set-cookie");
    for attribute in ["Path=/e/one", "HttpOnly", "SameSite=Lax"] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
    let place = cookie.split(';').next().unwrap().to_owned();
    // Another comes behind; whoever shows the cookie keeps the place.
    assert!(browse("minassa_room=forged").await.text().contains("People ahead of you: 1"));
    assert!(browse(&place).await.text().contains("People ahead of you: 1"));
    door.on_air("one", 1_000);
    let page = browse(&format!("a=b; {place}")).await;
    assert!(
        page.text().contains("<audio") && page.text().contains("http://talk.example:8081/t/"),
        "{}",
        page.text()
    );
    assert!(!page.text().contains("http-equiv"));
    assert!(door.get("/e/one").await.expect(200).text().contains("?plain&amp;lang="));
}

#[tokio::test]
async fn newcomers_are_challenged_where_evidence_asks_for_it() {
    let door = Door::open().await;
    let host = Door::host_of(&door.create("one").await);
    let ask = async |body: &Value| {
        let request = Request::post("/api/events/one/ticket").header("content-type", "application/json");
        door.request(request.body(body.to_string().into()).unwrap()).await
    };
    door.on_air("one", 1_000);
    let listens = ask(&json!({})).await.expect(200).json();
    let slug = "one".parse().unwrap();
    let now = backend::clock::unix_now();
    door.control.challenges.observe(&slug, Some(&crate::challenges::tests::attack(now)), now);
    // Evidence alone is no reason.
    ask(&json!({})).await.expect(200);
    door.on_air("one", 0);
    door.operate(Method::PATCH, "/api/ladder", &json!({ "pin": 4 })).await.expect(200);
    let ladder = door.operate(Method::GET, "/api/ladder", &Value::Null).await.expect(200).json();
    assert_eq!(ladder["measures"]["challenge"], true, "{ladder}");
    let asked = |answer: Answer| {
        let answer = answer.expect(401);
        assert_eq!(
            (answer.header("cache-control"), answer.header("www-authenticate")),
            ("no-store", "Altcha")
        );
        let asked = answer.json();
        assert_eq!(asked["type"], "urn:minassa:problem:challenge");
        assert_eq!((&asked["algorithm"], &asked["waits_s"]), (&json!("SHA-256"), &json!(20)));
        assert!(asked["expires"].as_str().unwrap().ends_with('Z'), "{asked}");
        asked
    };
    let text = |asked: &Value, key: &str| asked[key].as_str().unwrap().to_owned();
    let answer = |asked: &Value, number: Option<u64>| {
        let (algorithm, number) = (text(asked, "algorithm"), number);
        let [salt, challenge, signature] = ["salt", "challenge", "signature"].map(|key| text(asked, key));
        admission::challenge::Solution { algorithm, challenge, number, salt, signature }.encode()
    };
    let solve = |asked: &Value| {
        let maxnumber = asked["maxnumber"].as_u64().unwrap().try_into().unwrap();
        let number = admission::challenge::solve(&text(asked, "salt"), &text(asked, "challenge"), maxnumber);
        answer(asked, Some(number.unwrap()))
    };

    // The plainest request too.
    asked(door.send(Method::POST, "/api/events/one/ticket", None, "").await);
    let first = asked(ask(&json!({})).await);
    let solution = json!({ "solution": solve(&first) });
    let place = ask(&solution).await.expect(202).json();
    // Once; and not unsolved before its time, nor with another number, nor made up.
    let again = asked(ask(&solution).await);
    assert!(again["detail"].as_str().unwrap().contains("used before"), "{again}");
    assert_ne!(again["salt"], first["salt"]);
    asked(ask(&json!({ "solution": answer(&again, None) })).await);
    asked(ask(&json!({ "solution": answer(&again, Some(200_001)) })).await);
    asked(ask(&json!({ "solution": "bm9uZQ==" })).await);
    assert_eq!(ask(&json!({ "solution": 7 })).await.expect(422).refused(), ["solution"]);
    assert_eq!(ask(&json!({ "solution": "A".repeat(2_049) })).await.expect(422).refused(), ["solution"]);
    // From another network it is none.
    let elsewhere = Request::post("/api/events/one/ticket").header("content-type", "application/json");
    let mut elsewhere = elsewhere.body(json!({ "solution": solve(&again) }).to_string().into()).unwrap();
    elsewhere.extensions_mut().insert(backend::http::Peer(([192, 0, 2, 1], 5_000).into()));
    asked(door.request(elsewhere).await);

    // Never who has a place, a ticket or an invitation.
    ask(&json!({ "token": place["token"] })).await.expect(202);
    ask(&json!({ "ticket": listens["ticket"] })).await.expect(200);
    door.send(Method::POST, "/api/events/one/ticket", Some(&host), "").await.expect(200);
    door.send(Method::POST, "/api/events/one/ticket", Some(&door.token), "").await.expect(200);
    let metrics = door.get("/metrics").await.expect(200).text();
    for line in [
        "minassa_challenges_asked_total 7",
        "minassa_challenges_passed_total{by=\"work\"} 1",
        "minassa_challenges_passed_total{by=\"patience\"} 0",
        "minassa_challenges_refused_total{reason=\"replayed\"} 1",
        "minassa_challenges_refused_total{reason=\"early\"} 1",
        "minassa_challenges_refused_total{reason=\"wrong\"} 1",
        "minassa_challenges_refused_total{reason=\"malformed\"} 1",
        "minassa_challenges_refused_total{reason=\"forged\"} 1",
        "minassa_challenge_on 1",
    ] {
        assert!(metrics.contains(&format!("{line}\n")), "{line}: {metrics}");
    }
    // It is no fault of theirs, and who came back with an answer came once.
    let counted = |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(counted(&door.control.counters.client_errors), 2, "the two of 422");
    assert_eq!(counted(&door.control.counters.asked), 2 + 7);
    // A level below, nobody is.
    door.operate(Method::PATCH, "/api/ladder", &json!({ "pin": 3 })).await.expect(200);
    ask(&json!({})).await.expect(202);
}

#[tokio::test]
async fn without_code_the_price_is_waiting_longer() {
    let door = Door::open().await;
    door.create("one").await;
    door.on_air("one", 0);
    let browse = async |cookie: &str| {
        let request =
            Request::get("/e/one?plain&lang=en").header("host", "talk.example:8080").header("cookie", cookie);
        door.request(request.body(Body::empty()).unwrap()).await.expect(200)
    };
    let (slug, now) = ("one".parse().unwrap(), backend::clock::unix_now());
    door.control.challenges.observe(&slug, Some(&crate::challenges::tests::attack(now)), now);
    door.operate(Method::PATCH, "/api/ladder", &json!({ "pin": 4 })).await.expect(200);
    let page = browse("").await;
    assert!(page.text().contains("joins the line by itself") && page.text().contains("content=\"25\""));
    let cookie = page.header("set-cookie").to_owned();
    assert!(cookie.starts_with("minassa_wait=") && cookie.contains("HttpOnly"), "{cookie}");
    // Too soon: nothing is lost, and nothing gained.
    let page = browse(cookie.split(';').next().unwrap()).await;
    assert!(page.text().contains("joins the line by itself") && page.header("set-cookie").is_empty());
    // In time it is a place like any other, once.
    let given = now.minus(std::time::Duration::from_secs(20));
    let challenge = door.control.challenges.ask(&slug, [127, 0, 0, 1].into(), 50_000, [1; 16], given);
    let waited = format!("minassa_wait={}", challenge.answer(None).encode());
    let page = browse(&waited).await;
    assert!(page.text().contains("People ahead of you: 1"), "{}", page.text());
    let place = page.header("set-cookie").split(';').next().unwrap().to_owned();
    assert!(place.starts_with("minassa_room="), "{place}");
    assert!(browse(&waited).await.header("set-cookie").starts_with("minassa_wait="));
    assert!(browse(&format!("{waited}; {place}")).await.text().contains("People ahead of you: 1"));
}

#[tokio::test]
async fn a_room_outlives_control() {
    let door = Door::open().await;
    door.create("one").await;
    let ask = async |door: &Door, body: Value| {
        let request = Request::post("/api/events/one/ticket").header("content-type", "application/json");
        door.request(request.body(body.to_string().into()).unwrap()).await
    };
    let token = ask(&door, json!({})).await.expect(202).json()["token"].clone();
    door.control.freeze_rooms();
    let Door { directory, .. } = door;
    let door = Door::open_in(directory).await;
    door.on_air("one", 0);
    ask(&door, json!({ "token": token })).await.expect(202);
    assert_eq!(door.get("/api/events/one/queue.json").await.expect(200).json()["waiting"], 1);
    door.on_air("one", 10);
    ask(&door, json!({ "token": token })).await.expect(200);
}
