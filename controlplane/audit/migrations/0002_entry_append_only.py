from pathlib import Path

from django.db import migrations

HERE = Path(__file__).parent


class Migration(migrations.Migration):
    dependencies = [("audit", "0001_initial")]

    operations = [
        migrations.RunSQL(
            (HERE / "0002_entry_append_only.sql").read_text(),
            (HERE / "0002_entry_append_only_reverse.sql").read_text(),
        ),
    ]
