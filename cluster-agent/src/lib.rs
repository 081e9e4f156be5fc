//! The cluster agent: exports the catalog of its cluster, receives its view, serves its proxies.
