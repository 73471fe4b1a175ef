//! All shared IO: transports, stores, configuration source, telemetry, admin.
