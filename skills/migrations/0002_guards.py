from pathlib import Path

from django.db import migrations

_HERE = Path(__file__).parent


class Migration(migrations.Migration):
    dependencies = [("skills", "0001_initial")]

    operations = [
        migrations.RunSQL(
            sql=(_HERE / "0002_guards.sql").read_text(encoding="utf-8"),
            reverse_sql=(_HERE / "0002_guards_reverse.sql").read_text(encoding="utf-8"),
        )
    ]
