"""Orders and their receipts are never edited."""

from django.db import migrations

SQL = """
CREATE FUNCTION enforcement_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = TG_NAME;
END $$;
CREATE TRIGGER order_append_only BEFORE UPDATE OR DELETE ON enforcement_order
    FOR EACH ROW EXECUTE FUNCTION enforcement_refuse_change();
CREATE TRIGGER acknowledgement_append_only BEFORE UPDATE OR DELETE
    ON enforcement_orderacknowledgement
    FOR EACH ROW EXECUTE FUNCTION enforcement_refuse_change();
ALTER TABLE enforcement_spool SET (fillfactor = 50);
"""
REVERSE = """
ALTER TABLE enforcement_spool RESET (fillfactor);
DROP TRIGGER acknowledgement_append_only ON enforcement_orderacknowledgement;
DROP TRIGGER order_append_only ON enforcement_order;
DROP FUNCTION enforcement_refuse_change();
"""


class Migration(migrations.Migration):
    dependencies = [("enforcement", "0001_initial")]

    operations = [migrations.RunSQL(SQL, REVERSE)]
