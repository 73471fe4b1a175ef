//! Watches resources and turns them into pods and configuration.
