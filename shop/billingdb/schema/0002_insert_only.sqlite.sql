-- Rows of the books can only be inserted: a correction is a document of its own.
-- The triggers on INSERT keep numbers without holes, and with that also refuse to
-- replace a numbered row (INSERT OR REPLACE runs no DELETE trigger by default).

CREATE TRIGGER invoice_no_update BEFORE UPDATE ON invoice
BEGIN SELECT RAISE(ABORT, 'invoice is insert-only: issue a credit note'); END;
CREATE TRIGGER invoice_no_delete BEFORE DELETE ON invoice
BEGIN SELECT RAISE(ABORT, 'invoice is insert-only: issue a credit note'); END;
CREATE TRIGGER invoice_no_gap BEFORE INSERT ON invoice
WHEN NEW.number <> (SELECT COALESCE(MAX(number), 0) + 1 FROM invoice WHERE series = NEW.series)
BEGIN SELECT RAISE(ABORT, 'invoice numbers have no holes: take the next number of the series'); END;

CREATE TRIGGER credit_note_no_update BEFORE UPDATE ON credit_note
BEGIN SELECT RAISE(ABORT, 'credit_note is insert-only'); END;
CREATE TRIGGER credit_note_no_delete BEFORE DELETE ON credit_note
BEGIN SELECT RAISE(ABORT, 'credit_note is insert-only'); END;
CREATE TRIGGER credit_note_no_gap BEFORE INSERT ON credit_note
WHEN NEW.number <> (SELECT COALESCE(MAX(number), 0) + 1 FROM credit_note WHERE series = NEW.series)
BEGIN SELECT RAISE(ABORT, 'credit note numbers have no holes: take the next number of the series'); END;

CREATE TRIGGER ledger_entry_no_update BEFORE UPDATE ON ledger_entry
BEGIN SELECT RAISE(ABORT, 'ledger_entry is insert-only: post an adjustment'); END;
CREATE TRIGGER ledger_entry_no_delete BEFORE DELETE ON ledger_entry
BEGIN SELECT RAISE(ABORT, 'ledger_entry is insert-only: post an adjustment'); END;
CREATE TRIGGER ledger_entry_no_gap BEFORE INSERT ON ledger_entry
WHEN NEW.entry <> (SELECT COALESCE(MAX(entry), 0) + 1 FROM ledger_entry)
BEGIN SELECT RAISE(ABORT, 'ledger entries have no holes: take the next number'); END;

CREATE TRIGGER adjustment_no_update BEFORE UPDATE ON adjustment
BEGIN SELECT RAISE(ABORT, 'adjustment is insert-only: post another one'); END;
CREATE TRIGGER adjustment_no_delete BEFORE DELETE ON adjustment
BEGIN SELECT RAISE(ABORT, 'adjustment is insert-only: post another one'); END;
CREATE TRIGGER adjustment_no_gap BEFORE INSERT ON adjustment
WHEN NEW.number <> (SELECT COALESCE(MAX(number), 0) + 1 FROM adjustment)
BEGIN SELECT RAISE(ABORT, 'adjustment numbers have no holes: take the next number'); END;
