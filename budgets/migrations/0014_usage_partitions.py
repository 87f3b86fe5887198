from pathlib import Path

from django.db import migrations, models

HERE = Path(__file__).parent


class Migration(migrations.Migration):

    dependencies = [
        ('budgets', '0013_usage_kinds'),
    ]

    operations = [
        migrations.CreateModel(
            name='UsageReceipt',
            fields=[
                ('id', models.UUIDField(editable=False, primary_key=True, serialize=False)),
                ('organization_id', models.UUIDField()),
                ('started_at', models.DateTimeField()),
                ('digest', models.BinaryField(null=True)),
            ],
        ),
        migrations.RunSQL(
            (HERE / "0014_usage_partitions.sql").read_text(),
            (HERE / "0014_usage_partitions_reverse.sql").read_text(),
        ),
    ]
