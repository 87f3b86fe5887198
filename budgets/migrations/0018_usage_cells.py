from pathlib import Path

import django.contrib.postgres.fields
from django.db import migrations, models

HERE = Path(__file__).parent


class Migration(migrations.Migration):

    dependencies = [
        ('budgets', '0017_price_rules'),
    ]

    operations = [
        migrations.CreateModel(
            name='UnfoldedUse',
            fields=[
                ('id', models.BigAutoField(primary_key=True, serialize=False)),
                ('received_at', models.DateTimeField()),
                ('events', django.contrib.postgres.fields.ArrayField(base_field=models.UUIDField(), default=list, size=None)),
                ('starts', django.contrib.postgres.fields.ArrayField(base_field=models.DateTimeField(), default=list, size=None)),
                ('ratings', django.contrib.postgres.fields.ArrayField(base_field=models.UUIDField(), default=list, size=None)),
            ],
        ),
        migrations.CreateModel(
            name='UsageValue',
            fields=[
                ('id', models.AutoField(primary_key=True, serialize=False)),
                ('organization_id', models.UUIDField()),
                ('dimension', models.SmallIntegerField()),
                ('value', models.TextField()),
            ],
            options={
                'constraints': [models.UniqueConstraint(fields=('organization_id', 'dimension', 'value'), name='usage_value_once')],
            },
        ),
        migrations.RunSQL(
            (HERE / "0018_usage_cells.sql").read_text(),
            (HERE / "0018_usage_cells_reverse.sql").read_text(),
            state_operations=[
                migrations.CreateModel(
                    name='UsageCell',
                    fields=[
                        ('pk', models.CompositePrimaryKey('organization_id', 'dimensions', 'hours', 'start', 'first', 'second', blank=True, editable=False, primary_key=True, serialize=False)),
                        ('organization_id', models.UUIDField()),
                        ('dimensions', models.SmallIntegerField()),
                        ('hours', models.SmallIntegerField()),
                        ('start', models.DateTimeField()),
                        ('first', models.IntegerField()),
                        ('second', models.IntegerField()),
                        ('calls', models.BigIntegerField()),
                        ('cut_calls', models.BigIntegerField()),
                        ('input_tokens', models.BigIntegerField()),
                        ('cached_input_tokens', models.BigIntegerField()),
                        ('output_tokens', models.BigIntegerField()),
                        ('reasoning_tokens', models.BigIntegerField()),
                        ('charge_nanos', models.BigIntegerField()),
                    ],
                ),
            ],
        ),
    ]
