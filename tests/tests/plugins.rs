//! Plugin files: which are loaded, which are refused and how, which are passed over. Real files, beside good ones.
