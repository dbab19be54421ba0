#!/usr/bin/env python3
"""Follow a Freehold feed: check every digest and the chain, print each event.
Usage: consumer.py http://127.0.0.1:8080/feed TOKEN [AFTER CHAIN]"""
import hashlib, json, struct, sys, urllib.request
from datetime import datetime, timezone

def field(value):
    raw = str(value).encode()
    return struct.pack(">I", len(raw)) + raw

def digest(e, payload):
    at = datetime.strptime(e["time"], "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=timezone.utc)
    micros = int(at.timestamp()) * 1_000_000 + at.microsecond
    flags = 2 if e.get("lastoftx") else 0
    names = ("correlationid", "causationid", "tenant", "actor", "traceparent")
    head = [e["id"], e["incarnation"], e["subject"], e["streamversion"], e["type"], e["schemaversion"], micros, flags]
    text = b"".join(map(field, head + [e.get(n, "") for n in names]))
    return hashlib.sha256(b"\0" + text + bytes.fromhex(e["nonce"]) + payload).digest()

def main(url, token, after="0", chain="0" * 64):
    after, chain = int(after), bytes.fromhex(chain)
    while True:
        query = f"{url}?after={after}&chain={chain.hex()}&limit=500"
        request = urllib.request.Request(query, headers={"Authorization": "Bearer " + token})
        with urllib.request.urlopen(request) as answer:  # 409: another history; 410: archived
            lines, head = answer.read().splitlines(), int(answer.headers["Freehold-Head"])
        for line in lines:
            e = json.loads(line)
            n, d = int(e["sequence"]), bytes.fromhex(e["digest"])
            if e["type"] != "freehold.placeholder":
                payload = line[line.index(b'"data":') + 7:-1]  # exactly as stored
                assert len(e["nonce"]) == 32 and digest(e, payload) == d, f"position {n}: bytes and digest do not agree"
            chain = hashlib.sha256(b"\1" + chain + struct.pack(">Q", n) + d).digest()
            assert n == after + 1 and chain.hex() == e["chain"], f"position {n} does not continue the chain"
            after = n  # store it with your effects, in one transaction
            print(n, e["type"], e.get("subject", "-"))
        if after >= head:
            return

main(*sys.argv[1:])
