-- Version 1 of the read model "seats": how many seats each customer has.
CREATE TABLE seats_v1 (customer TEXT PRIMARY KEY, seats BIGINT NOT NULL);
