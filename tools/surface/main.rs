//! The public surface of a crate, one item a line, from what rustdoc wrote about it as JSON: `surface target/doc/specmm.json`.
//!
//! Owns: nothing; `public-api` reads and renders. `tools/surface.py` runs it and compares.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args_os().nth(1).ok_or("surface: which JSON?")?;
    // Of what the compiler implements by itself the tool keeps what a caller notices.
    let surface = public_api::Builder::from_rustdoc_json(path).omit_blanket_impls(true).build()?;
    print!("{surface}");
    Ok(())
}
