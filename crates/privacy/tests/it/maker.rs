//! Makes the generated part of the golden corpus, the same for ever from one seed.
//!
//! Nothing here is shared with the crate that is judged by it: check digits are computed forward
//! from random digits, shapes are written as templates, and encodings are written out again. A
//! case is `language TAB format TAB text`; in the text `⟦kind:value⟧` marks what must be found,
//! `\n`, `\t` and `\\` are escapes, and `¦` is left out on reading: it breaks up tokens, so that
//! hosts that scan for secrets do not take them for real ones.

use std::cell::Cell;
use std::fmt::Write as _;

pub(crate) const VAULT: [&str; 6] = [
    "kT9#vLw2!pQz",
    "5f0c2a77e1b94d6f8a31c05e",
    "postgres-Pa55/word+with=signs",
    "line one of a key\nline two of it\nand three",
    "pä55wörd-für-alle",
    "zq81-mm20-xk93-ap47",
];
pub(crate) const CANARIES: [&str; 2] = ["canary-7d1e0b5c9f", "BEDPLATE/CANARY?42"];
pub(crate) const NAMES: [&str; 12] = [
    "Annelie Bergström",
    "Jürgen Großmann",
    "Łukasz Żółkiewski",
    "Çağla Şimşek",
    "Иван Петрович Сидоров",
    "山田太郎",
    "王小明",
    "محمد الأحمد",
    "प्रिया शर्मा",
    "María José Núñez",
    "Ostrava Dynamics",
    "O'Connell",
];

const SENTENCES: [(&str, &str, &str); 15] = [
    ("en", "Hello, the value we talked about is ", "; please check it before Friday."),
    ("de", "Guten Tag, hier ist die Angabe für den Vorgang: ", ", bitte bis Freitag prüfen."),
    ("fr", "Bonjour, voici la donnée du dossier : ", ", merci de la vérifier."),
    ("es", "Hola, este es el dato del expediente: ", ", gracias por revisarlo."),
    ("it", "Buongiorno, ecco il dato della pratica: ", ", da verificare entro venerdì."),
    ("pl", "Dzień dobry, oto dane sprawy: ", ", proszę sprawdzić do piątku."),
    ("pt", "Olá, segue o dado do processo: ", ", por favor confira."),
    ("nl", "Goedemiddag, hier is het gegeven: ", ", graag controleren."),
    ("sv", "Hej, här är uppgiften i ärendet: ", ", kontrollera den gärna."),
    ("tr", "Merhaba, dosyadaki bilgi şudur: ", ", lütfen kontrol edin."),
    ("ru", "Здравствуйте, вот данные по делу: ", ", проверьте, пожалуйста."),
    ("ja", "こんにちは、こちらが情報です: ", " よろしくお願いします。"),
    ("zh", "您好，以下是信息： ", " 请核对。"),
    ("ar", "مرحبا، هذه هي المعلومة: ", " يرجى التحقق."),
    ("hi", "नमस्ते, यह जानकारी है: ", " कृपया जाँच करें।"),
];

const FORMATS: [(&str, &str, &str); 9] = [
    ("json", "{\"id\": 7, \"label\": \"", "\", \"ok\": true}"),
    ("yaml", "entry:\\n  - kind: note\\n    text: \"", "\"\\n    done: false"),
    ("csv", "7,open,", ",EUR,19.99"),
    ("log", "2024-03-17T10:42:07.123Z WARN worker[311] seen ", " after 12 ms"),
    ("code", "const ENTRY: &str = \"", "\"; // used below"),
    ("html", "<td class=\"c2\"><b>", "</b></td>"),
    ("mail", "Subject: Re: case 12/2024\\nX-Info: ", "\\nDate: Mon, 04 Mar 2024 10:00:00 +0100"),
    ("query", "GET /find?page=2 note ", " HTTP/1.1"),
    ("markdown", "| field | value |\\n|---|---|\\n| a | ", " |"),
];

pub(crate) struct Random(Cell<u64>);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(Cell::new(seed))
    }

    /// SplitMix64.
    pub(crate) fn next(&self) -> u64 {
        let mut z = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(z);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn pick<'a, T: ?Sized>(&self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }

    fn range(&self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }

    /// Each `#` a digit, `N` a digit from 2, `a` a letter, `A` a capital, `*` a letter or digit,
    /// `h` a hexadecimal digit; `'x` is x itself.
    fn fill(&self, template: &str) -> String {
        let mut out = String::new();
        let mut chars = template.chars();
        while let Some(c) = chars.next() {
            let from: &str = match c {
                '#' => "0123456789",
                'N' => "23456789",
                'a' => "abcdefghijklmnopqrstuvwxyz",
                'A' => "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
                '*' => "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
                'h' => "0123456789abcdef",
                '\'' => {
                    out.extend(chars.next());
                    continue;
                }
                c => {
                    out.push(c);
                    continue;
                }
            };
            out.push(char::from(from.as_bytes()[self.below(from.len())]));
        }
        out
    }
}

fn digits(text: &str) -> Vec<u32> {
    text.chars().filter_map(|c| c.to_digit(10)).collect()
}

fn luhn_digit(body: &str) -> u32 {
    let mut sum = 0;
    for (at, digit) in digits(body).iter().rev().enumerate() {
        sum += if at % 2 == 0 { [0, 2, 4, 6, 8, 1, 3, 5, 7, 9][*digit as usize] } else { *digit };
    }
    (1000 - sum) % 10
}

fn weighted(body: &str, weights: &[u32]) -> u32 {
    digits(body).iter().zip(weights).map(|(d, w)| d * w).sum()
}

/// The text regrouped: `[4, 4]` and a separator.
fn grouped(text: &str, lengths: &[usize], separator: &str) -> String {
    let mut rest = text;
    let mut parts = Vec::new();
    for length in lengths {
        let (part, tail) = rest.split_at(*length);
        parts.push(part);
        rest = tail;
    }
    parts.join(separator)
}

fn card(r: &Random, wrong: bool) -> String {
    let (prefix, length) = [
        ("4", 16),
        ("51", 16),
        ("55", 16),
        ("2225", 16),
        ("34", 15),
        ("37", 15),
        ("6011", 16),
        ("36", 14),
        ("3530", 16),
        ("62", 16),
    ][r.below(10)];
    let body = r.fill(&format!("{prefix}{}", "#".repeat(length - prefix.len() - 1)));
    let check = (luhn_digit(&body) + u32::from(wrong) * (1 + r.below(9) as u32)) % 10;
    let number = format!("{body}{check}");
    let groups: &[usize] = match length {
        16 => &[4, 4, 4, 4],
        15 => &[4, 6, 5],
        _ => &[4, 6, 4],
    };
    match r.below(3) {
        0 => number,
        1 => grouped(&number, groups, " "),
        _ => grouped(&number, groups, "-"),
    }
}

fn iban(r: &Random, wrong: bool) -> String {
    let (country, template) = [
        ("DE", "##################"),
        ("FR", "####################A##"),
        ("ES", "####################"),
        ("IT", "A######################"),
        ("NL", "AAAA##########"),
        ("PL", "########################"),
        ("GB", "AAAA##############"),
        ("SE", "####################"),
        ("TR", "#####0################"),
        ("PT", "#####################"),
        ("AT", "################"),
        ("CH", "#################"),
        ("NO", "###########"),
        ("BE", "############"),
    ][r.below(14)];
    let body = r.fill(template);
    let mut remainder = 0;
    for c in format!("{body}{country}00").chars() {
        let value = c.to_digit(36).unwrap();
        remainder =
            if value > 9 { (remainder * 100 + value) % 97 } else { (remainder * 10 + value) % 97 };
    }
    let check = 98 - remainder;
    let check = if wrong { (check + 1 + r.below(90) as u32) % 97 + 100 } else { check };
    let text = format!("{country}{:02}{body}", check % 100);
    if r.below(2) == 0 {
        return text;
    }
    let mut out = String::new();
    for (at, c) in text.chars().enumerate() {
        if at > 0 && at % 4 == 0 {
            out.push(' ');
        }
        out.push(c);
    }
    out
}

fn date(r: &Random, template: &str) -> String {
    let (year, month, day) = (r.range(1930, 2009), r.range(1, 12), r.range(1, 28));
    template
        .replace("YYYY", &format!("{year}"))
        .replace("YY", &format!("{:02}", year % 100))
        .replace("MM", &format!("{month:02}"))
        .replace("DD", &format!("{day:02}"))
}

/// A national number; `wrong` spoils its check.
fn id(r: &Random, kind: &str, wrong: bool) -> String {
    let off = if wrong { 1 + r.below(8) as u32 } else { 0 };
    match kind {
        "de-tax-id" => de_tax_id(r, off),
        "fr-nir" => fr_nir(r, off),
        "es-dni" => es_dni(r, off),
        "it-fiscal-code" => it_fiscal_code(r, off),
        "nl-bsn" => nl_bsn(r, off),
        "pl-pesel" => pl_pesel(r, off),
        "se-personnummer" => se_personnummer(r, off),
        "fi-hetu" => fi_hetu(r, off),
        "br-cpf" => br_cpf(r, off),
        "uk-nhs" => uk_nhs(r, off),
        "us-ssn" => us_ssn(r, off),
        "in-aadhaar" => in_aadhaar(r, off),
        "cn-resident-id" => cn_resident_id(r, off),
        other => panic!("no generator for {other}"),
    }
}

fn de_tax_id(r: &Random, off: u32) -> String {
    // Ten different digits but one, which comes twice in the place of another.
    let mut order: Vec<u32> = (0..10).collect();
    for at in (1..10).rev() {
        order.swap(at, r.below(at + 1));
    }
    if order[0] == 0 {
        order.swap(0, 4);
    }
    let (from, to) = (r.below(4), 5 + r.below(5));
    order[to] = order[from];
    let mut product = 10;
    for digit in &order {
        let sum = match (digit + product) % 10 {
            0 => 10,
            sum => sum,
        };
        product = sum * 2 % 11;
    }
    let check = ((11 - product) % 10 + off) % 10;
    let body: String = order.iter().map(|d| char::from_digit(*d, 10).unwrap()).collect();
    let number = format!("{body}{check}");
    if r.below(2) == 0 { number } else { grouped(&number, &[2, 3, 3, 3], " ") }
}

fn fr_nir(r: &Random, off: u32) -> String {
    let body = r.fill(&format!(
        "{}{}{:02}{:02}###'{}##",
        r.range(1, 2),
        date(r, "YYMM"),
        r.range(1, 95),
        r.range(1, 9),
        r.below(10)
    ));
    let body = &body[..13];
    let key = 97 - body.parse::<u64>().unwrap() % 97;
    let key =
        (key + u64::from(off) * 5) % 97 + u64::from((key + u64::from(off) * 5) % 97 == 0) * 97;
    let number = format!("{body}{key:02}");
    match r.below(3) {
        0 => number,
        1 => grouped(&number, &[1, 2, 2, 2, 3, 3, 2], " "),
        _ => grouped(&number, &[13, 2], " "),
    }
}

fn es_dni(r: &Random, off: u32) -> String {
    let letters = b"TRWAGMYFPDXBNJZSQVHLCKE";
    let number = r.range(10_000_000, 99_999_999);
    let foreign = r.below(3) == 0;
    let value = if foreign { number % 10_000_000 + 10_000_000 } else { number };
    let letter = char::from(letters[(value + off as usize) % 23]);
    match (foreign, r.below(2)) {
        (true, _) => format!("Y{:07}{letter}", value - 10_000_000),
        (_, 0) => format!("{value}{letter}"),
        _ => format!("{value}-{letter}"),
    }
}

fn it_fiscal_code(r: &Random, off: u32) -> String {
    let month = char::from(b"ABCDEHLMPRST"[r.below(12)]);
    let body = r.fill(&format!("AAAAAA##'{month}{:02}A###", r.range(1, 28)));
    let mut sum = 0;
    for (at, c) in body.chars().enumerate() {
        let value =
            if c.is_ascii_digit() { c.to_digit(10).unwrap() } else { c.to_digit(36).unwrap() - 10 };
        // The odd table, from the decree, for values 0 to 25.
        let odd = [
            1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25,
            24, 23,
        ];
        sum += if at % 2 == 0 { odd[value as usize] } else { value };
    }
    format!("{body}{}", char::from(b'A' + ((sum + off) % 26) as u8))
}

fn nl_bsn(r: &Random, off: u32) -> String {
    loop {
        let body = r.fill("########");
        let sum = weighted(&body, &[9, 8, 7, 6, 5, 4, 3, 2]) % 11;
        if sum < 10 && !body.starts_with("00") {
            return format!("{body}{}", (sum + off) % 10);
        }
    }
}

fn pl_pesel(r: &Random, off: u32) -> String {
    let (year, month, day) = (r.range(1930, 2009), r.range(1, 12), r.range(1, 28));
    let month = month + if year >= 2000 { 20 } else { 0 };
    let body = r.fill(&format!("{:02}{month:02}{day:02}####", year % 100));
    let check = (10 - weighted(&body, &[1, 3, 7, 9, 1, 3, 7, 9, 1, 3]) % 10 + off) % 10;
    format!("{body}{check}")
}

fn se_personnummer(r: &Random, off: u32) -> String {
    let (day, serial) = (date(r, "YYMMDD"), r.fill("###"));
    let check = (luhn_digit(&format!("{day}{serial}")) + off) % 10;
    match r.below(3) {
        0 => format!("{day}{serial}{check}"),
        1 => format!("{day}-{serial}{check}"),
        _ => format!("19{day}-{serial}{check}"),
    }
}

fn fi_hetu(r: &Random, off: u32) -> String {
    let (day, serial) = (date(r, "DDMMYY"), r.range(2, 899));
    let value: u64 = format!("{day}{serial:03}").parse().unwrap();
    let check = b"0123456789ABCDEFHJKLMNPRSTUVWXY"[((value + u64::from(off)) % 31) as usize];
    format!("{day}{}{serial:03}{}", r.pick(&["-", "A", "-"]), char::from(check))
}

fn br_cpf(r: &Random, off: u32) -> String {
    let nine = r.fill("N########");
    let first = weighted(&nine, &[10, 9, 8, 7, 6, 5, 4, 3, 2]) % 11;
    let first = if first < 2 { 0 } else { 11 - first };
    let ten = format!("{nine}{first}");
    let second = weighted(&ten, &[11, 10, 9, 8, 7, 6, 5, 4, 3, 2]) % 11;
    let second = if second < 2 { 0 } else { 11 - second };
    let number = format!("{ten}{}", (second + off) % 10);
    if r.below(3) == 0 {
        number
    } else {
        format!("{}.{}.{}-{}", &number[..3], &number[3..6], &number[6..9], &number[9..])
    }
}

fn uk_nhs(r: &Random, off: u32) -> String {
    loop {
        let body = r.fill("4########");
        let check = 11 - weighted(&body, &[10, 9, 8, 7, 6, 5, 4, 3, 2]) % 11;
        if check != 10 {
            let number = format!("{body}{}", (check % 11 + off) % 10);
            return if r.below(2) == 0 { number } else { grouped(&number, &[3, 3, 4], " ") };
        }
    }
}

fn us_ssn(r: &Random, off: u32) -> String {
    let area = if off > 0 { "000" } else { r.pick(&["212", "536", "408", "665", "731"]) };
    r.fill(&format!("{area}-{:02}-N###", r.range(1, 99)))
}

fn in_aadhaar(r: &Random, off: u32) -> String {
    let body = r.fill("N##########");
    let check = (0..10).find(|check| verhoeff_is_zero(&format!("{body}{check}"))).unwrap();
    let number = format!("{body}{}", (check + off) % 10);
    if r.below(2) == 0 { number } else { grouped(&number, &[4, 4, 4], " ") }
}

fn cn_resident_id(r: &Random, off: u32) -> String {
    let body =
        r.fill(&format!("{}01##{}###", r.pick(&["11", "31", "44", "51"]), date(r, "YYYYMMDD")));
    let sum = weighted(&body, &[7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2]);
    let check = b"10X98765432"[((sum + off) % 11) as usize];
    format!("{body}{}", char::from(check))
}

/// The scheme of Verhoeff by the published multiplication and permutation tables.
fn verhoeff_is_zero(number: &str) -> bool {
    const D: [&str; 10] = [
        "0123456789",
        "1234067895",
        "2340178956",
        "3401289567",
        "4012395678",
        "5987604321",
        "6598710432",
        "7659821043",
        "8765932104",
        "9876543210",
    ];
    const P: [&str; 8] = [
        "0123456789",
        "1576283094",
        "5803796142",
        "8916043527",
        "9453126870",
        "4286573901",
        "2793806415",
        "7046913258",
    ];
    let mut check = 0_usize;
    for (at, digit) in digits(number).iter().rev().enumerate() {
        let permuted = usize::from(P[at % 8].as_bytes()[*digit as usize] - b'0');
        check = usize::from(D[check].as_bytes()[permuted] - b'0');
    }
    check == 0
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = !0_u32;
    for b in bytes {
        crc ^= u32::from(*b);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    !crc
}

fn with_crc(r: &Random, prefix: &str, wrong: bool) -> String {
    let body = r.fill(&"*".repeat(30));
    let mut crc = crc32(body.as_bytes()).wrapping_add(u32::from(wrong) * 77);
    let mut tail = String::new();
    for _ in 0..6 {
        let digit = (crc % 62) as u8;
        tail.insert(
            0,
            char::from(match digit {
                0..=9 => b'0' + digit,
                10..=35 => b'A' + digit - 10,
                _ => b'a' + digit - 36,
            }),
        );
        crc /= 62;
    }
    format!("{prefix}¦{body}{tail}")
}

pub(crate) fn base64(bytes: &[u8], url: bool) -> String {
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let alphabet = format!("{alphabet}{}", if url { "-_" } else { "+/" });
    let bits: String = bytes.iter().fold(String::new(), |mut bits, b| {
        let _ = write!(bits, "{b:08b}");
        bits
    });
    let mut out = String::new();
    for six in bits.as_bytes().chunks(6) {
        let six = format!("{:0<6}", std::str::from_utf8(six).unwrap());
        out.push(char::from(alphabet.as_bytes()[usize::from_str_radix(&six, 2).unwrap()]));
    }
    while !url && !out.len().is_multiple_of(4) {
        out.push('=');
    }
    out
}

fn token(r: &Random, kind: &str) -> String {
    let n = |r: &Random, prefix: &str, length: usize| {
        r.fill(&format!("{}¦{}", quoted(prefix), "*".repeat(length)))
    };
    match kind {
        "github-token" => match r.below(4) {
            0 => {
                let t = format!("github_pat_¦{}_{}", "*".repeat(22), "*".repeat(59));
                let t = quoted_until(&t, '¦');
                r.fill(&t)
            }
            _ => {
                let prefix = r.pick(&["ghp_", "gho_", "ghs_"]);
                with_crc(r, prefix, false)
            }
        },
        "npm-token" => with_crc(r, "npm_", false),
        "aws-key" => {
            let body = r.fill("AAAAAAAAAAAA####");
            format!("AK¦IA{body}")
        }
        "gitlab-token" => n(r, "glpat-", 20),
        "slack-token" => {
            let t = format!("{}¦##########-##########-{}", quoted("xoxb-"), "*".repeat(24));
            r.fill(&t)
        }
        "stripe-key" => {
            let p = r.pick(&["sk_live_", "rk_live_", "sk_test_"]);
            n(r, p, 24)
        }
        "anthropic-key" => n(r, "sk-ant-api03-", 93),
        "openai-key" => {
            let p = r.pick(&["sk-proj-", "sk-"]);
            n(r, p, 48)
        }
        "google-key" => n(r, "AIza", 35),
        "pypi-token" => n(r, "pypi-AgEIcHlwaS5vcmc", 80),
        "other-token" => match r.below(4) {
            0 => {
                let t = format!("{}¦{}", quoted("dop_v1_"), "h".repeat(64));
                r.fill(&t)
            }
            1 => n(r, "hf_", 34),
            2 => {
                let t = format!("SG.¦{}.{}", "*".repeat(22), "*".repeat(43));
                r.fill(&t)
            }
            _ => n(r, "hvs.", 28),
        },
        "jwt" => {
            let head = base64(br#"{"alg":"HS256","typ":"JWT"}"#, true);
            let body = base64(format!("{{\"sub\":\"{}\"}}", r.below(99999)).as_bytes(), true);
            let tail = r.fill(&"*".repeat(43));
            format!("ey¦{}.{body}.{tail}", &head[2..])
        }
        other => panic!("no generator for {other}"),
    }
}

/// A prefix that `fill` leaves as it is.
fn quoted(prefix: &str) -> String {
    prefix.chars().flat_map(|c| ['\'', c]).collect()
}

fn quoted_until(template: &str, end: char) -> String {
    let at = template.find(end).unwrap();
    quoted(&template[..at]) + &template[at..]
}

fn email(r: &Random) -> String {
    let locals = [
        "anna.berg",
        "j.smith+news",
        "info",
        "o'neil",
        "maría.lópez",
        "jürgen",
        "иван.петров",
        "tanaka_99",
        "x",
        "first-last",
        "user.name.42",
        "ÇAĞLA",
    ];
    let domains = [
        "example.com",
        "mail.example.co.uk",
        "firma.de",
        "bücher.example",
        "xn--bcher-kva.example",
        "почта.рф",
        "sub.dept.university.edu",
        "example.museum",
        "a-b.io",
    ];
    format!("{}@{}", r.pick(&locals), r.pick(&domains))
}

/// A telephone number, and the word that must stand before it, if one must.
fn phone(r: &Random) -> (&'static str, String) {
    let (word, template) = [
        ("", "+49 30 N#######"),
        ("", "+4915N########"),
        ("", "+1 (41N) 555-0###"),
        ("", "+1-212-555-01##"),
        ("", "+33 6 12 34 ## ##"),
        ("", "+44 20 7946 0###"),
        ("", "+44 (0)20 7946 0###"),
        ("", "+81-90-1234-####"),
        ("", "+86 138 1234 ####"),
        ("", "+91 98765 4####"),
        ("", "+48 512 345 ###"),
        ("", "+34612345###"),
        ("", "+358 40 123 4###"),
        ("", "+55 11 98765-4###"),
        ("", "+7 912 345-67-##"),
        ("", "+90 532 123 4# ##"),
        ("", "+966 50 123 4###"),
        ("", "+31 6 1234 5###"),
        ("", "+46 70 123 4# ##"),
        ("", "+39 347 123 4###"),
        ("", "(415) 555-0###"),
        ("", "212-555-0###"),
        ("", "1-800-555-0###"),
        ("", "06 12 34 ## ##"),
        ("", "030 N######"),
        ("", "0151 2345####"),
        ("", "089/123###"),
        ("", "020 7946 0###"),
        ("", "03-1234-####"),
        ("", "090-1234-####"),
        ("", "06-1234####"),
        ("", "070-123 4# ##"),
        ("", "0532 123 4# ##"),
        ("", "138 1234 ####"),
        ("", "(11) 98765-####"),
        ("", "98765 4####"),
        ("", "8 (912) 345-67-##"),
        ("", "0049 30 123###"),
        ("Tel: ", "612 345 ###"),
        ("phone ", "415555####"),
        ("móvil ", "6123456##"),
        ("тел. ", "89123456###"),
        ("電話 ", "09012345###"),
        ("手机 ", "1381234####"),
        ("Mobile: ", "98765#####"),
        ("Telefon: ", "0301234###"),
    ][r.below(46)];
    (word, r.fill(template))
}

fn address(r: &Random, kind: &str) -> String {
    match kind {
        "ipv4" => format!(
            "{}.{}.{}.{}",
            r.pick(&["10", "192", "203", "81", "172"]),
            r.below(256),
            r.below(256),
            r.range(1, 254)
        ),
        "ipv6" => match r.below(4) {
            0 => r.fill("2001:db8:1hh:2hh::3hh"),
            1 => r.fill("fe80::1hhh:2hhh:3hhh:4hhh"),
            2 => r.fill("2'a00:1hhh:2hhh:3hhh:4hhh:5hhh:6hhh:7hhh"),
            _ => r.fill("fd12:3456:789'a::1hh"),
        },
        _ => {
            let s = r.pick(&[":", "-"]);
            (0..6)
                .map(|at| if at == 0 { "3c".to_owned() } else { r.fill("hh") })
                .collect::<Vec<_>>()
                .join(s)
        }
    }
}

/// The vault's value or canary as something else wrote it, marked; what is around is not.
fn written(r: &Random, kind: &str, value: &str) -> String {
    let mark = |text: &str| format!("⟦{kind}:{}⟧", escaped(text));
    match r.below(7) {
        0 => format!("{}{}{}", r.pick(&["", "x", "=", "\""]), mark(value), r.pick(&["", "y", ";"])),
        1 => mark(&value.bytes().fold(String::new(), |mut t, b| {
            let _ = write!(t, "{b:02x}");
            t
        })),
        2 => mark(&value.bytes().fold(String::new(), |mut t, b| {
            let _ = write!(t, "{b:02X}");
            t
        })),
        3 => mark(&percent(value)),
        4 => mark(serde_json::to_string(value).unwrap().trim_matches('"')),
        n => {
            // Inside a longer base64 text: the characters that are the value's alone are marked.
            let before = r.pick(&["", "u", "us", "user:"]);
            let all = base64(format!("{before}{value}.").as_bytes(), n == 5);
            let (first, last) =
                ((before.len() * 8).div_ceil(6), (before.len() + value.len()) * 8 / 6);
            format!("{}{}{}", &all[..first], mark(&all[first..last]), &all[last..])
        }
    }
}

fn percent(value: &str) -> String {
    value.bytes().fold(String::new(), |mut out, b| {
        if b.is_ascii_alphanumeric() || b"-_.~".contains(&b) {
            out.push(char::from(b));
        } else {
            let _ = write!(out, "%{b:02X}");
        }
        out
    })
}

pub(crate) fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n").replace('\t', "\\t")
}

const IDS: [(&str, &str); 13] = [
    ("de-tax-id", "Steuer-ID: "),
    ("fr-nir", "NIR : "),
    ("es-dni", "DNI "),
    ("it-fiscal-code", "CF: "),
    ("nl-bsn", "BSN: "),
    ("pl-pesel", "PESEL "),
    ("se-personnummer", "personnummer "),
    ("fi-hetu", "hetu "),
    ("br-cpf", "CPF "),
    ("uk-nhs", "NHS number "),
    ("us-ssn", "SSN: "),
    ("in-aadhaar", "Aadhaar: "),
    ("cn-resident-id", "身份证 "),
];
const TOKENS: [&str; 12] = [
    "github-token",
    "npm-token",
    "aws-key",
    "gitlab-token",
    "slack-token",
    "stripe-key",
    "anthropic-key",
    "openai-key",
    "google-key",
    "pypi-token",
    "other-token",
    "jwt",
];

/// One thing to find, marked.
fn positive(r: &Random, at: usize) -> String {
    let mark = |kind: &str, text: &str| format!("⟦{kind}:{text}⟧");
    match at % 16 {
        0 | 1 => mark("email", &email(r)),
        2 | 3 => {
            let (word, number) = phone(r);
            format!("{word}{}", mark("phone", &number))
        }
        4 => mark("card", &card(r, false)),
        5 => mark("iban", &iban(r, false)),
        6 => {
            let kind = r.pick(&["ipv4", "ipv6", "mac"]);
            mark(kind, &address(r, kind))
        }
        7..=10 => {
            let (kind, word) = IDS[at / 16 * 4 % 13].to_owned();
            let (kind, word) =
                if at % 16 == 7 { (kind, word) } else { IDS[(at * 5 + at / 16) % 13] };
            format!("{word}{}", mark(kind, &id(r, kind, false)))
        }
        11 => mark("name", r.pick(&NAMES)),
        12 => {
            let kind = TOKENS[at / 16 % 12];
            mark(kind, &token(r, kind))
        }
        13 => {
            let word = r.pick(&[
                "password=",
                "\"api_key\": \"",
                "DB_PASSWORD: ",
                "client_secret = '",
                "Authorization: Bearer ",
            ]);
            let value = r.fill("*a#A*a#**a*#*A#**a*#");
            format!("{word}{}", mark("credential", &value))
        }
        14 => {
            let value = VAULT[r.below(VAULT.len())];
            written(r, "secret", value)
        }
        _ => {
            let value = CANARIES[r.below(CANARIES.len())];
            written(r, "canary", value)
        }
    }
}

/// Something that looks like one and is none.
fn negative(r: &Random, at: usize) -> String {
    match at % 30 {
        0 => card(r, true),
        1 => iban(r, true),
        2 | 3 => {
            let (kind, word) = IDS[(at / 30 * 2 + at % 30) % 13];
            format!("{word}{}", id(r, kind, true))
        }
        4 => r.fill("hhhhhhhh-hhhh-4hhh-8hhh-hhhhhhhhhhhh"),
        5 => r.fill(&"h".repeat(40)),
        6 => format!("version {}.{}.{}.{}", r.below(20), r.below(30), r.below(99), r.below(250)),
        7 => r.fill("v#.##.#-rc.#"),
        8 => format!(
            "{} {:02}:{:02}:{:02}",
            date(r, "YYYY-MM-DD"),
            r.below(24),
            r.below(60),
            r.below(60)
        ),
        9 => format!("{} {:02}:{:02}", date(r, "DD.MM.YYYY"), r.below(24), r.below(60)),
        10 => r.fill("17########"),
        11 => r.fill("17###########"),
        12 => r.fill("order 100-####"),
        13 => format!("INV-{}-{}", date(r, "YYYY"), r.fill("00####")),
        14 => r.fill("1 ### ### EUR"),
        15 => r.fill("##.####, -##.#####"),
        16 => with_crc(r, "ghp_", true),
        _ => negative_word(r, at),
    }
}

/// As `negative`: words, code and addresses.
fn negative_word(r: &Random, at: usize) -> String {
    match at % 30 {
        17 => r
            .pick(&[
                "password=${PASSWORD}",
                "token: string",
                "api_key = os.environ['API_KEY']",
                "password: <your password>",
                "secret=xxxxxxxxxxxx",
                "let token = next_token();",
                "\"token\": null",
                "pwd && ls -la",
                "passwort = getpass.getpass()",
                "sk-xxxxxxxxxxxxxxxxxxxxxxxx",
            ])
            .to_owned(),
        18 => r
            .pick(&[
                "git@github.com:owner/repo.git",
                "icon@2x.png",
                "react@18.2.0",
                "@property",
                "user@localhost",
                "a @ b",
                "@types/node@20.1.0",
                "foo@bar",
                "me@",
                "logo@3x.webp",
            ])
            .to_owned(),
        19 => r
            .pick(&[
                "127.0.0.1",
                "0.0.0.0",
                "::1",
                "255.255.255.255",
                "std::vec::Vec",
                "1.2.3",
                "1.3.6.1.4.1.311",
                "999.1.1.1",
                "10:30:00",
                "abc::def",
                "Chrome/120.0.0.0",
                "node-10.0.0.1-alpine",
            ])
            .to_owned(),
        20 => r.fill("#ad'f0##"),
        21 => r.fill("ISBN 978-3-16-14####-#"),
        22 => r.fill("1Z'9'9'9'A'A10123456##"),
        23 => r.fill("$#,###,###.##"),
        24 => r
            .pick(&[
                "Bergströmska",
                "Annelie Berg",
                "Großmannstadt",
                "Jürgen",
                "Ostrava",
                "Connell",
                "Marianne",
                "петля",
                "Szymon Żak",
            ])
            .to_owned(),
        25 => r.fill("0x'hh'hh").replace('h', "f"),
        26 => format!("{}-{}", date(r, "YYYY-MM-DD"), r.fill("##")),
        27 => r.fill("SKU ####-AA-##"),
        28 => r.fill("###x### px, ##.#%, #e-0#"),
        _ => r.fill("build ########.#"),
    }
}

/// Every generated case, a line each.
pub(crate) fn cases() -> String {
    let r = Random::new(0x00be_d91a_7e00);
    let mut out = String::new();
    for at in 0..2_500 {
        let inner = if at % 5 < 3 {
            positive(&r, at / 5 * 3 + at % 5)
        } else {
            negative(&r, at / 5 * 2 + at % 5 - 3)
        };
        let (language, before, after) = SENTENCES[r.below(15)];
        if r.below(2) == 0 {
            let _ = writeln!(out, "{language}\tprose\t{before}{inner}{after}");
        } else {
            let (format, head, tail) = FORMATS[r.below(9)];
            let _ = writeln!(out, "{language}\t{format}\t{head}{inner}{tail}");
        }
    }
    out
}
