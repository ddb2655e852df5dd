use super::*;

fn load(file: &str, environment: &[(&str, &str)], flags: &[FlagValue]) -> Result<Config, ConfigError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("test.toml");
    std::fs::write(&path, file).unwrap();
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::load(Some(&path), environment, flags)
}

#[test]
fn the_sample_is_the_default_and_names_every_key() {
    assert_eq!(load(SAMPLE, &[], &[]).unwrap(), Config::default());

    // Whatever is commented out because it has no default must be a key, and be allowed as it stands there.
    let uncommented: String = SAMPLE
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.split_once(" = ").is_some_and(|(key, _)| !key.contains(' ')) => rest,
            _ => line,
        })
        .map(|line| format!("{line}\n"))
        .collect();
    load(&uncommented, &[], &[]).unwrap();
    let table: Table = uncommented.parse().unwrap();
    for section in SECTIONS {
        let Value::Table(content) = &table[section] else { panic!("[{section}] is no section") };
        for key in keys(section).unwrap() {
            assert!(content.contains_key(*key), "the sample does not name {section}.{key}");
        }
        assert!(!keys(section).unwrap().is_empty());
    }
}

#[test]
fn every_key_of_the_sample_has_a_sentence() {
    let lines: Vec<_> = SAMPLE.lines().collect();
    for pair in lines.windows(2) {
        let key = pair[1].trim_start_matches("# ").split_once(" = ").map(|(key, _)| key);
        if key.is_some_and(|key| !key.contains(' ')) {
            assert!(pair[0].starts_with("# ") && pair[0].ends_with(['.', ':']), "above {:?}", pair[1]);
        }
    }
}

#[test]
fn flags_override_the_environment_which_overrides_the_file() {
    let file = "[control]\nlisten = \"127.0.0.1:1\"\nticket_s = 100\ninvite_s = 4000\n";
    let environment = [
        ("MINASSA_CONTROL_LISTEN", "127.0.0.1:2"),
        ("MINASSA_CONTROL_TICKET_S", "200"),
        // Not ours to judge.
        ("MINASSA_TOKEN", "secret"),
        ("MINASSA_HEARTBEAT_FD", "7"),
        ("PATH", "/bin"),
    ];
    let flag = FlagValue {
        flag: "--listen",
        key: ("control", "listen"),
        value: Value::String("127.0.0.1:3".into()),
    };
    let config = load(file, &environment, &[flag]).unwrap().control;
    assert_eq!(config.listen.port(), 3);
    assert_eq!((config.ticket_s, config.invite_s), (200, 4_000));
}

#[test]
fn values_of_the_environment_find_their_types() {
    let environment = [
        ("MINASSA_SERVER_LOG", "12"),
        ("MINASSA_CONTROL_PUBLIC_URL", "https://talk.example"),
        ("MINASSA_ORIGIN_MEDIA_PUBLIC", "[\"192.0.2.1:9\"]"),
        ("MINASSA_EDGE_CELL", "3"),
    ];
    let mut config = load("", &environment[1..], &[]).unwrap();
    assert_eq!(config.control.public_url.take().as_deref(), Some("https://talk.example"));
    assert_eq!(config.origin.media_public, ["192.0.2.1:9".parse().unwrap()]);
    assert_eq!(config.edge.cell, 3);
    // A text that looks like a number stays a text where a text belongs.
    assert!(!matches!(
        load("", &environment[..1], &[]),
        Err(ConfigError::Invalid { allowed, .. }) if allowed.contains("invalid type")
    ));
}

#[test]
fn messages_name_the_key_the_value_and_what_is_allowed() {
    let check = |file: &str, environment: &[(&str, &str)], expected: &[&str]| {
        let message = load(file, environment, &[]).unwrap_err().to_string();
        for part in expected {
            assert!(message.contains(part), "{message:?} lacks {part:?}");
        }
    };
    check("[server]\nedgse = 2\n", &[], &["test.toml", "server.edgse", "there are data, edges"]);
    check("[sever]\n", &[], &["sever", "server, tls, control, origin, edge"]);
    check("server = 3\n", &[], &["[server]"]);
    check(
        "[server]\nedges = 257\n",
        &[],
        &["test.toml", "server.edges = 257", "0 (one for each core) to 256"],
    );
    check("[server]\nedges = \"two\"\n", &[], &["server.edges = \"two\"", "expected u16"]);
    check("[control]\nticket_s = 5\n", &[], &["control.ticket_s = 5", "60 to 86400"]);
    check("[origin]\nlisten = \"here\"\n", &[], &["origin.listen = \"here\"", "socket address"]);
    check(
        "",
        &[("MINASSA_EDGE_STUCK_S", "601")],
        &["MINASSA_EDGE_STUCK_S", "edge.stuck_s = 601", "1 to 600"],
    );
    check("", &[("MINASSA_EDGE_STUK_S", "6")], &["MINASSA_EDGE_STUK_S", "edge.stuk_s"]);
    check("[tls]\nkey = \"a.pem\"\n", &[], &["tls.certificate", "a file, if tls.key is set"]);
    check("", &[("MINASSA_TLS_NAMES", "[\"a b\"]")], &["MINASSA_TLS_NAMES", "tls.names", "names of hosts"]);
    check("[server\n", &[], &["test.toml", "is no TOML"]);
    check("[server]\nlog = \"a=b=c\"\n", &[], &["server.log", "directives"]);
    let message = Config::load(Some(Path::new("/nowhere/x.toml")), [], &[]).unwrap_err().to_string();
    assert!(message.contains("/nowhere/x.toml"), "{message}");
}

#[test]
fn the_effective_configuration_reads_back() {
    let mut config = Config::default();
    config.control.public_url = Some("https://talk.example".into());
    config.tls.certificate = Some("/etc/minassa/certificate.pem".into());
    config.tls.key = Some("/etc/minassa/key.pem".into());
    config.origin.recording_fallbacks = vec!["/mnt/second".into()];
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.toml");
    std::fs::write(&path, config.to_toml()).unwrap();
    assert_eq!(Config::load_effective(&path).unwrap(), config);
}
