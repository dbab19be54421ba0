-- Rows of the books can only be inserted: a correction is a document of its own.
-- Numbers without holes are kept by their keys and the lock under which they are
-- drawn.

CREATE FUNCTION billing_insert_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION '% is insert-only: issue a credit note or post an adjustment', TG_TABLE_NAME;
END
$$;

CREATE TRIGGER invoice_insert_only BEFORE UPDATE OR DELETE OR TRUNCATE ON invoice
FOR EACH STATEMENT EXECUTE FUNCTION billing_insert_only();
CREATE TRIGGER credit_note_insert_only BEFORE UPDATE OR DELETE OR TRUNCATE ON credit_note
FOR EACH STATEMENT EXECUTE FUNCTION billing_insert_only();
CREATE TRIGGER ledger_entry_insert_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_entry
FOR EACH STATEMENT EXECUTE FUNCTION billing_insert_only();
CREATE TRIGGER adjustment_insert_only BEFORE UPDATE OR DELETE OR TRUNCATE ON adjustment
FOR EACH STATEMENT EXECUTE FUNCTION billing_insert_only();
