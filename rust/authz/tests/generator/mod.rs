//! Policies, entities and requests at random: mostly well typed, often enough not.

use creto_enablement_common::{Fields, Value};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

pub const SCHEMA: &str = r#"
entity G in [G];
entity U in [G] = { n?: Long, s?: String, b?: Bool, e?: U, set?: Set<Long>, names?: Set<String>, rec?: { n?: Long, s?: String }, ip?: ipaddr, dec?: decimal, dt?: datetime, dur?: duration, nest?: Set<Set<Long>> } tags String;
entity R in [R, G] = { n?: Long, s?: String, b?: Bool, e?: U, set?: Set<Long>, names?: Set<String>, rec?: { n?: Long, s?: String }, ip?: ipaddr, dec?: decimal, dt?: datetime, dur?: duration, nest?: Set<Set<Long>> } tags String;
entity Color enum ["red", "green"];
action "all"; action "read", "write" in ["all"];
action "view" in ["read"] appliesTo { principal: [U], resource: [R, Color], context: { n: Long, s?: String, b?: Bool, e?: U, set?: Set<Long>, names?: Set<String>, rec?: { n: Long, s?: String }, ip?: ipaddr, dec?: decimal, dt?: datetime, dur?: duration, nest?: Set<Set<Long>>, color?: Color } };
action "edit" in ["read", "write"] appliesTo { principal: [U], resource: R, context: { n?: Long, s?: String, b?: Bool, e?: U, set?: Set<Long>, names?: Set<String>, rec?: { n?: Long, s?: String }, ip?: ipaddr, dec?: decimal, dt?: datetime, dur?: duration, nest?: Set<Set<Long>> } };
"#;

/// SplitMix64: small, and the same on every machine.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Asked {
    pub principal: (String, String),
    pub action: (String, String),
    pub resource: (String, String),
    pub context: Json,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Case {
    pub with_schema: bool,
    pub policies: Vec<String>,
    /// Links of templates: the template's place among the policies, and what fills its slots.
    pub links: Vec<(usize, Vec<(String, String)>)>,
    pub entities: Vec<Json>,
    pub removed: Vec<(String, String)>,
    pub changed: Vec<Json>,
    pub requests: Vec<Asked>,
}

const IDS: [&str; 6] = ["a", "b", "c", "d", "e", "stranger"];
const LONGS: [&str; 9] = ["0", "1", "2", "3", "10", "-1", "9223372036854775807", "-9223372036854775807", "4611686018427387904"];
const TEXTS: [&str; 7] = ["", "a", "ab", "abc", "b*c", "héé", "x/y/z"];
const FIELDS: [&str; 12] = ["n", "s", "b", "e", "set", "names", "rec", "ip", "dec", "dt", "dur", "nest"];

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Bool,
    Long,
    Text,
    Entity,
    Longs,
    Names,
    Entities,
    Record,
    Ip,
    Decimal,
    Datetime,
    Duration,
    Nested,
}

const KINDS: [Kind; 13] = [
    Kind::Bool,
    Kind::Long,
    Kind::Text,
    Kind::Entity,
    Kind::Longs,
    Kind::Names,
    Kind::Entities,
    Kind::Record,
    Kind::Ip,
    Kind::Decimal,
    Kind::Datetime,
    Kind::Duration,
    Kind::Nested,
];

fn field_of(kind: Kind) -> Option<&'static str> {
    Some(match kind {
        Kind::Bool => "b",
        Kind::Long => "n",
        Kind::Text => "s",
        Kind::Entity => "e",
        Kind::Longs => "set",
        Kind::Names => "names",
        Kind::Record => "rec",
        Kind::Ip => "ip",
        Kind::Decimal => "dec",
        Kind::Datetime => "dt",
        Kind::Duration => "dur",
        Kind::Nested => "nest",
        Kind::Entities => return None,
    })
}

struct Writer<'a> {
    random: &'a mut Random,
    /// Percent of places where a value of another type stands.
    wrong: usize,
    /// Whether accesses are guarded by `has`, as strict validation wants.
    guarded: bool,
    guards: Vec<String>,
}

impl Writer<'_> {
    fn entity(&mut self) -> String {
        let kind = self.random.pick(&["U", "G", "R", "U", "G", "Action"]);
        let id = if kind == "Action" { self.random.pick(&["view", "edit", "read", "all"]) } else { self.random.pick(&IDS) };
        format!("{kind}::\"{id}\"")
    }

    fn access(&mut self, field: &str) -> String {
        let base = self.random.pick(&["principal", "resource", "context", "context"]);
        let of = if self.random.chance(10) {
            self.guards.push(format!("{base} has e"));
            format!("{base}.e")
        } else {
            base.to_owned()
        };
        self.guards.push(format!("{of} has {field}"));
        format!("{of}.{field}")
    }

    fn expr(&mut self, mut kind: Kind, depth: usize) -> String {
        if self.random.chance(self.wrong) {
            kind = KINDS[self.random.below(KINDS.len())];
        }
        let deeper = depth + 1;
        if depth < 3 && self.random.chance(6) {
            let test = self.expr(Kind::Bool, deeper);
            let (then, other) = (self.expr(kind, deeper), self.expr(kind, deeper));
            return format!("(if {test} then {then} else {other})");
        }
        if let Some(field) = field_of(kind)
            && self.random.chance(35)
        {
            return self.access(field);
        }
        if depth >= 4 {
            return self.leaf(kind);
        }
        match kind {
            Kind::Bool => self.condition(deeper),
            Kind::Long => match self.random.below(6) {
                0 => format!("({} + {})", self.expr(Kind::Long, deeper), self.expr(Kind::Long, deeper)),
                1 => format!("({} - {})", self.expr(Kind::Long, deeper), self.expr(Kind::Long, deeper)),
                2 => format!("({} * {})", self.expr(Kind::Long, deeper), self.expr(Kind::Long, deeper)),
                3 => format!("(-{})", self.expr(Kind::Long, deeper)),
                4 => {
                    let unit = self.random.pick(&["toMilliseconds", "toSeconds", "toMinutes", "toHours", "toDays"]);
                    format!("{}.{unit}()", self.expr(Kind::Duration, deeper))
                }
                _ => self.leaf(kind),
            },
            Kind::Text if self.random.chance(25) => {
                let of = self.random.pick(&["principal", "resource"]);
                let tag = self.random.pick(&["t1", "t2"]);
                self.guards.push(format!("{of}.hasTag(\"{tag}\")"));
                format!("{of}.getTag(\"{tag}\")")
            }
            Kind::Entity => match self.random.below(4) {
                0 => "principal".to_owned(),
                1 => "resource".to_owned(),
                2 => "action".to_owned(),
                _ => self.leaf(kind),
            },
            Kind::Longs => format!("[{}, {}]", self.expr(Kind::Long, deeper), self.expr(Kind::Long, deeper)),
            Kind::Names => {
                let items: Vec<String> = (0..1 + self.random.below(11)).map(|_| self.expr(Kind::Text, 4)).collect();
                format!("[{}]", items.join(", "))
            }
            Kind::Entities => {
                let items: Vec<String> = (0..1 + self.random.below(11)).map(|_| self.expr(Kind::Entity, 4)).collect();
                format!("[{}]", items.join(", "))
            }
            Kind::Nested if self.random.chance(60) => {
                let items: Vec<String> = (0..1 + self.random.below(3)).map(|_| self.expr(Kind::Longs, deeper)).collect();
                format!("[{}]", items.join(", "))
            }
            Kind::Record if self.random.chance(50) => {
                format!("{{n: {}, s: {}}}", self.expr(Kind::Long, deeper), self.expr(Kind::Text, deeper))
            }
            Kind::Datetime => match self.random.below(4) {
                0 => format!("{}.offset({})", self.expr(Kind::Datetime, deeper), self.expr(Kind::Duration, deeper)),
                1 => format!("{}.toDate()", self.expr(Kind::Datetime, deeper)),
                _ => self.leaf(kind),
            },
            Kind::Duration => match self.random.below(4) {
                0 => format!("{}.durationSince({})", self.expr(Kind::Datetime, deeper), self.expr(Kind::Datetime, deeper)),
                1 => format!("{}.toTime()", self.expr(Kind::Datetime, deeper)),
                _ => self.leaf(kind),
            },
            _ => self.leaf(kind),
        }
    }

    fn leaf(&mut self, kind: Kind) -> String {
        match kind {
            Kind::Bool => self.random.pick(&["true", "false"]).to_owned(),
            // Small numbers meet each other often; large ones overflow.
            Kind::Long if self.random.chance(75) => self.random.pick(&LONGS[..4]).to_owned(),
            Kind::Long => self.random.pick(&LONGS).to_owned(),
            Kind::Text => format!("{:?}", self.random.pick(&TEXTS)),
            Kind::Entity => self.entity(),
            Kind::Longs => self.random.pick(&["[1, 2, 3]", "[1]", "[3, 2, 1, 2]", "[0]"]).to_owned(),
            Kind::Nested => self.random.pick(&["[[1], [2, 1]]", "[[1, 2], [1], [2, 1, 1]]", "[[0]]"]).to_owned(),
            Kind::Names => self
                .random
                .pick(&["[\"a\"]", "[\"ab\", \"a\"]", "[\"a\",\"b\",\"c\",\"d\",\"e\",\"f\",\"g\",\"h\",\"ab\",\"abc\"]"])
                .to_owned(),
            Kind::Entities => format!("[{}, {}]", self.entity(), self.entity()),
            Kind::Record => self.random.pick(&["{n: 1, s: \"a\"}", "{n: 1}", "{}"]).to_owned(),
            Kind::Ip => format!(
                "ip({:?})",
                self.random.pick(&["10.0.0.1", "10.0.0.0/8", "127.0.0.1", "::1", "ff02::1", "10.0.0.300", "0.0.0.0/0", "1.2.3.4/33"])
            ),
            Kind::Decimal => {
                format!("decimal({:?})", self.random.pick(&["1.0", "0.5", "-1.2345", "1.23456", "922337203685477.5807", "1.00"]))
            }
            Kind::Datetime => format!(
                "datetime({:?})",
                self.random.pick(&[
                    "2024-02-29",
                    "1970-01-01T00:00:00Z",
                    "2024-01-01T12:30:00.500+0100",
                    "2023-02-29",
                    "1969-12-31T23:00:00Z"
                ])
            ),
            Kind::Duration => format!("duration({:?})", self.random.pick(&["1d", "-1d2h", "5ms", "1h30m", "106751991167d", "1x", "0s"])),
        }
    }

    fn condition(&mut self, depth: usize) -> String {
        match self.random.below(27) {
            0 => format!("({} && {})", self.expr(Kind::Bool, depth), self.expr(Kind::Bool, depth)),
            1 => format!("({} || {})", self.expr(Kind::Bool, depth), self.expr(Kind::Bool, depth)),
            2 => format!("!({})", self.expr(Kind::Bool, depth)),
            3 | 4 => {
                let kind = KINDS[self.random.below(KINDS.len())];
                let op = self.random.pick(&["==", "!="]);
                format!("({} {op} {})", self.expr(kind, depth), self.expr(kind, depth))
            }
            5 | 6 => {
                let kind = [Kind::Long, Kind::Long, Kind::Datetime, Kind::Duration][self.random.below(4)];
                let op = self.random.pick(&["<", "<=", ">", ">="]);
                format!("({} {op} {})", self.expr(kind, depth), self.expr(kind, depth))
            }
            7 | 8 => format!("({} in {})", self.expr(Kind::Entity, depth), self.expr(Kind::Entity, depth)),
            9 => format!("({} in {})", self.expr(Kind::Entity, depth), self.expr(Kind::Entities, depth)),
            10 => format!("{}.contains({})", self.expr(Kind::Longs, depth), self.expr(Kind::Long, depth)),
            11 => format!("{}.contains({})", self.expr(Kind::Names, depth), self.expr(Kind::Text, depth)),
            12 => format!("{}.contains({})", self.expr(Kind::Entities, depth), self.expr(Kind::Entity, depth)),
            13 => {
                let op = self.random.pick(&["containsAll", "containsAny"]);
                let kind = if self.random.chance(50) { Kind::Longs } else { Kind::Names };
                format!("{}.{op}({})", self.expr(kind, depth), self.expr(kind, depth))
            }
            14 => format!("{}.isEmpty()", self.expr(Kind::Longs, depth)),
            15 => {
                let pattern = self.random.pick(&["a*", "*c", "*b*", "a*c", "*", "", "b\\*c", "h*é", "*/*/*"]);
                format!("({} like \"{pattern}\")", self.expr(Kind::Text, depth))
            }
            16 => format!("({} is {})", self.expr(Kind::Entity, depth), self.random.pick(&["U", "G", "R", "Action"])),
            17 => format!("({} is U in {})", self.expr(Kind::Entity, depth), self.entity()),
            18 => {
                let of = self.random.pick(&["principal", "resource", "context", "context.rec", "principal.e"]);
                format!("({of} has {})", self.random.pick(&FIELDS))
            }
            19 => format!("({} has rec.{})", self.random.pick(&["principal", "context", "resource"]), self.random.pick(&["n", "s"])),
            20 => {
                let op = self.random.pick(&["lessThan", "lessThanOrEqual", "greaterThan", "greaterThanOrEqual"]);
                format!("{}.{op}({})", self.expr(Kind::Decimal, depth), self.expr(Kind::Decimal, depth))
            }
            21 => {
                let op = self.random.pick(&["isIpv4", "isIpv6", "isLoopback", "isMulticast"]);
                format!("{}.{op}()", self.expr(Kind::Ip, depth))
            }
            23 => format!("{}.contains({})", self.expr(Kind::Nested, depth), self.expr(Kind::Longs, depth)),
            24 => {
                let op = self.random.pick(&["containsAll", "containsAny"]);
                format!("{}.{op}({})", self.expr(Kind::Nested, depth), self.expr(Kind::Nested, depth))
            }
            25 => format!("({} == {})", self.expr(Kind::Nested, depth), self.expr(Kind::Nested, depth)),
            22 => format!("{}.isInRange({})", self.expr(Kind::Ip, depth), self.expr(Kind::Ip, depth)),
            _ => format!("{}.hasTag({})", self.random.pick(&["principal", "resource"]), self.expr(Kind::Text, 4)),
        }
    }

    fn scope(&mut self, variable: &str, kinds: &[&str], slots: bool) -> String {
        let kind = self.random.pick(kinds);
        let target = |w: &mut Self| {
            if slots && w.random.chance(60) {
                format!("?{variable}")
            } else {
                format!("{}::\"{}\"", w.random.pick(kinds), w.random.pick(&IDS))
            }
        };
        match self.random.below(10) {
            0 | 1 | 6..=9 => variable.to_owned(),
            2 => format!("{variable} == {}", target(self)),
            3 => format!("{variable} in {}", target(self)),
            4 => format!("{variable} is {kind}"),
            _ => format!("{variable} is {kind} in {}", target(self)),
        }
    }

    fn policy(&mut self, slots: bool) -> String {
        let effect = self.random.pick(&["permit", "permit", "forbid"]);
        let principal = self.scope("principal", &["U", "G"], slots);
        let resource = self.scope("resource", &["R", "G"], slots);
        let action = match self.random.below(8) {
            0 | 1 | 6 | 7 => "action".to_owned(),
            2 => format!("action == Action::\"{}\"", self.random.pick(&["view", "edit", "read"])),
            3 => format!("action in Action::\"{}\"", self.random.pick(&["all", "read", "write", "view"])),
            _ => format!(
                "action in [Action::\"{}\", Action::\"{}\"]",
                self.random.pick(&["write", "view"]),
                self.random.pick(&["read", "edit"])
            ),
        };
        let mut text = format!("{effect} ({principal}, {action}, {resource})");
        for _ in 0..self.random.below(3) {
            let word = self.random.pick(&["when", "when", "unless"]);
            self.guards.clear();
            let mut condition = self.expr(Kind::Bool, 0);
            if self.guarded {
                let guards = std::mem::take(&mut self.guards);
                for guard in guards.iter().rev() {
                    condition = format!("{guard} && {condition}");
                }
            }
            text = format!("{text} {word} {{ {condition} }}");
        }
        text + ";"
    }
}

fn json_value(random: &mut Random, field: &str, wrong: bool) -> Json {
    let field = if wrong { random.pick(&FIELDS) } else { field };
    let extension = |function: &str, text: &str| json!({"__extn": {"fn": function, "arg": text}});
    match field {
        "n" => json!([0, 1, 2, 3, 0, 1, 2, 3, -1, i64::MAX][random.below(10)]),
        "s" => json!(random.pick(&TEXTS)),
        "b" => json!(random.chance(50)),
        "e" => json!({"__entity": {"type": random.pick(&["U", "U", if wrong { "Action" } else { "U" }]), "id": random.pick(&IDS)}}),
        "set" => json!((0..random.below(4)).map(|_| random.below(4)).collect::<Vec<_>>()),
        "names" => json!((0..random.below(12)).map(|_| random.pick(&TEXTS)).collect::<Vec<_>>()),
        "rec" => match random.below(3) {
            0 => json!({"n": 1, "s": "a"}),
            1 => json!({"n": 1}),
            _ => json!({}),
        },
        "ip" => extension("ip", random.pick(&["10.0.0.1", "10.0.0.0/8", "::1", "127.0.0.1/7"])),
        "dec" => extension("decimal", random.pick(&["1.0", "0.5", "-1.2345"])),
        "nest" => json!((0..random.below(4)).map(|_| (0..random.below(3)).map(|_| random.below(3)).collect()).collect::<Vec<Vec<_>>>()),
        "dt" => extension("datetime", random.pick(&["2024-02-29", "1969-12-31T23:00:00Z", "2024-01-01T12:30:00.500+0100"])),
        _ => extension("duration", random.pick(&["1d", "-1d2h", "5ms"])),
    }
}

fn record(random: &mut Random, wrong: usize, share: usize) -> Json {
    let mut fields = serde_json::Map::new();
    for field in FIELDS {
        if random.chance(share) {
            let off = random.chance(wrong);
            fields.insert(field.to_owned(), json_value(random, field, off));
        }
    }
    Json::Object(fields)
}

fn entity(random: &mut Random, kind: &str, id: &str, wrong: usize) -> Json {
    let mut parents = Vec::new();
    for _ in 0..random.below(3) {
        // Later ids stand above earlier ones, so that there are no cycles; the step that changes entities makes some.
        let parent = random.pick(&IDS[..5]);
        if kind != "G" || parent > id {
            parents.push(json!({"type": "G", "id": parent}));
        }
    }
    let attrs = if kind == "G" { json!({}) } else { record(random, wrong, 85) };
    let mut entity = json!({"uid": {"type": kind, "id": id}, "attrs": attrs, "parents": parents});
    if kind != "G" && random.chance(50) {
        entity["tags"] = json!({"t1": random.pick(&TEXTS)});
    }
    entity
}

impl Case {
    pub fn generate(random: &mut Random) -> Self {
        let with_schema = random.chance(40);
        let wrong = if with_schema { 0 } else { 3 };
        let mut policies = Vec::new();
        let mut links = Vec::new();
        for at in 0..1 + random.below(8) {
            let slots = random.chance(12);
            let mut writer = Writer { random, wrong, guarded: with_schema, guards: Vec::new() };
            let text = writer.policy(slots);
            if text.contains('?') {
                let mut values = Vec::new();
                for slot in ["?principal", "?resource"] {
                    if text.contains(slot) {
                        let kinds = if slot == "?principal" { ["U", "G"] } else { ["R", "G"] };
                        values.push((slot.to_owned(), format!("{}::\"{}\"", random.pick(&kinds), random.pick(&IDS))));
                    }
                }
                links.push((at, values));
            }
            policies.push(text);
        }
        if with_schema {
            // Strict validation refuses a set for one policy; each is tried alone, and those that stand are kept.
            let schema: cedar_policy::Schema = SCHEMA.parse().unwrap();
            let validator = cedar_policy::Validator::new(schema);
            let templates: Vec<usize> = links.iter().map(|(at, _)| *at).collect();
            let mut kept = Vec::new();
            let mut at = 0;
            policies.retain(|text| {
                let fits = !templates.contains(&at)
                    && text
                        .parse::<cedar_policy::PolicySet>()
                        .is_ok_and(|set| validator.validate(&set, cedar_policy::ValidationMode::Strict).validation_passed());
                at += 1;
                kept.push(fits);
                fits
            });
            links.clear();
            if policies.is_empty() {
                policies.push("permit (principal, action, resource) when { context has n && context.n < 3 };".to_owned());
            }
        }
        let mut entities = Vec::new();
        for kind in ["U", "G", "R"] {
            for id in &IDS[..5] {
                if random.chance(75) {
                    entities.push(entity(random, kind, id, wrong));
                }
            }
        }
        if !with_schema {
            for (id, parents) in [("view", vec!["read"]), ("edit", vec!["read", "write"]), ("read", vec!["all"]), ("write", vec!["all"])] {
                let parents: Vec<Json> = parents.iter().map(|id| json!({"type": "Action", "id": id})).collect();
                entities.push(json!({"uid": {"type": "Action", "id": id}, "attrs": {}, "parents": parents}));
            }
        }
        let pool = |random: &mut Random, kinds: &[&str]| (random.pick(kinds).to_owned(), random.pick(&IDS).to_owned());
        let removed = (0..random.below(3)).map(|_| pool(random, &["U", "G", "R"])).collect();
        let mut changed: Vec<Json> = Vec::new();
        for _ in 0..random.below(3) {
            let (kind, id) = pool(random, &["U", "G", "R"]);
            if changed.iter().all(|e| e["uid"] != json!({"type": kind, "id": id})) {
                let mut fresh = entity(random, &kind, &id, wrong);
                if random.chance(8) {
                    fresh["parents"] = json!([{"type": "G", "id": random.pick(&IDS[..5])}]);
                }
                changed.push(fresh);
            }
        }
        let requests = (0..40)
            .map(|_| {
                let action = random.pick(&["view", "edit", "view", "edit", "read", "unknown"]).to_owned();
                let kinds: &[&str] = if random.chance(6) { &["G", "Color", "Nothing"] } else { &["R"] };
                let resource =
                    if random.chance(8) { ("Color".to_owned(), random.pick(&["red", "blue"]).to_owned()) } else { pool(random, kinds) };
                let principal = if random.chance(5) { pool(random, &["G", "R", "Nobody"]) } else { pool(random, &["U"]) };
                let mut context = record(random, if with_schema { 2 } else { 4 }, 88);
                if random.chance(4) {
                    context["extra"] = json!(1);
                }
                if random.chance(10) {
                    context["color"] = json!({"__entity": {"type": "Color", "id": random.pick(&["red", "blue"])}});
                }
                Asked { principal, action: ("Action".to_owned(), action), resource, context }
            })
            .collect();
        Self { with_schema, policies, links, entities, removed, changed, requests }
    }

    /// The set as text; as Cedar's JSON where templates are linked.
    pub fn policies_text(&self) -> String {
        let text = self.policies.join("\n");
        if self.links.is_empty() {
            return text;
        }
        let Ok(mut set) = text.parse::<cedar_policy::PolicySet>() else { return text };
        for (number, (at, values)) in self.links.iter().enumerate() {
            let values = values
                .iter()
                .map(|(slot, uid)| {
                    let slot = if slot == "?principal" { cedar_policy::SlotId::principal() } else { cedar_policy::SlotId::resource() };
                    (slot, uid.parse().unwrap())
                })
                .collect();
            let template = format!("policy{at}").parse().unwrap();
            let _ = set.link(template, format!("link{number}").parse().unwrap(), values);
        }
        set.to_json().unwrap().to_string()
    }

    /// Cases with one thing less.
    pub fn smaller(&self) -> Vec<Self> {
        let mut cases = Vec::new();
        if self.requests.len() > 1 {
            for request in &self.requests {
                cases.push(Self { requests: vec![request.clone()], ..self.clone() });
            }
            return cases;
        }
        let without = |n: usize, apply: &dyn Fn(&mut Self, usize)| -> Vec<Self> {
            (0..n)
                .map(|at| {
                    let mut case = self.clone();
                    apply(&mut case, at);
                    case
                })
                .collect()
        };
        if self.links.is_empty() && self.policies.len() > 1 {
            cases.extend(without(self.policies.len(), &|case, at| drop(case.policies.remove(at))));
        }
        cases.extend(without(self.entities.len(), &|case, at| drop(case.entities.remove(at))));
        cases.extend(without(self.removed.len(), &|case, at| drop(case.removed.remove(at))));
        cases.extend(without(self.changed.len(), &|case, at| drop(case.changed.remove(at))));
        if let Some(request) = self.requests.first()
            && let Json::Object(fields) = &request.context
        {
            for name in fields.keys() {
                let mut case = self.clone();
                if let Json::Object(fields) = &mut case.requests[0].context {
                    fields.remove(name);
                }
                cases.push(case);
            }
        }
        cases
    }
}

/// A context from JSON, borrowed by what asks with it.
pub fn fields<T>(context: &Json, ask: impl FnOnce(Fields<'_>) -> T) -> T {
    // Leaked by design: a test may keep what it generated until it ends.
    let fields = match lent(context) {
        Value::Record(fields) => fields,
        _ => &[],
    };
    ask(fields)
}

fn lent(value: &Json) -> Value<'static> {
    let text = |text: &str| -> &'static str { Box::leak(text.to_owned().into_boxed_str()) };
    match value {
        Json::Bool(b) => Value::Bool(*b),
        Json::Number(n) => Value::Long(n.as_i64().unwrap()),
        Json::String(s) => Value::Str(text(s)),
        Json::Array(items) => Value::Set(Box::leak(items.iter().map(lent).collect::<Box<[_]>>())),
        Json::Object(map) => {
            if let Some(entity) = map.get("__entity") {
                return Value::Entity(text(entity["type"].as_str().unwrap()), text(entity["id"].as_str().unwrap()));
            }
            if let Some(extension) = map.get("__extn") {
                return Value::Extension(text(extension["fn"].as_str().unwrap()), text(extension["arg"].as_str().unwrap()));
            }
            Value::Record(Box::leak(map.iter().map(|(name, v)| (text(name), lent(v))).collect::<Box<[_]>>()))
        }
        Json::Null => Value::Bool(false),
    }
}
