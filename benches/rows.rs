//! What benches record of a large result.

/// `DataRow` messages of a table of customers.
pub(crate) fn rows(bytes: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes + 512);
    let mut n = 0u32;
    while out.len() < bytes {
        n += 1;
        let hex = blake3::hash(&n.to_le_bytes()).to_hex();
        let values = [
            n.to_string(),
            format!("customer {}", hex.get(..8).unwrap()),
            format!("{}@example.com", hex.get(8..20).unwrap()),
            format!("2025-11-{:02} 10:{:02}:00+00", n % 28 + 1, n % 60),
            format!("{}.{:02}", n * 7 % 10_000, n % 100),
            "active".to_owned(),
        ];
        let length: usize = values.iter().map(|value| value.len() + 4).sum();
        out.push(b'D');
        out.extend_from_slice(&u32::try_from(length + 6).unwrap().to_be_bytes());
        out.extend_from_slice(&6u16.to_be_bytes());
        for value in values {
            out.extend_from_slice(&u32::try_from(value.len()).unwrap().to_be_bytes());
            out.extend_from_slice(value.as_bytes());
        }
    }
    out
}
