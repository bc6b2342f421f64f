//! The sandbox contract, the process driver, layers, spawner and init: the only crate with unsafe.
