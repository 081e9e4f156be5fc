//! The proxy: one data plane in three roles, mTLS from end to end.
