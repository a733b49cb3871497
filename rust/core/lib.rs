//! Linux's file page-fault path as a library.

#[cfg(not(target_os = "linux"))]
compile_error!("specmm runs on Linux only");

/// Bytes in a page.
pub const PAGE_SIZE: usize = 4096;
