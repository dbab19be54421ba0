CREATE TABLE payment (order_id TEXT PRIMARY KEY, pence BIGINT NOT NULL CHECK (pence > 0));
