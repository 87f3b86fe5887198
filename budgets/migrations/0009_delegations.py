from pathlib import Path

import controlplane.identity.ids
import django.db.models.deletion
import django.db.models.expressions
from django.db import migrations, models


HERE = Path(__file__).parent


class Migration(migrations.Migration):

    dependencies = [
        ('budgets', '0008_thresholds'),
        ('identity', '0004_pulse'),
    ]

    operations = [
        migrations.AddField(
            model_name='balance',
            name='delegated',
            field=models.BooleanField(db_default=False, default=False),
        ),
        migrations.CreateModel(
            name='Delegation',
            fields=[
                ('id', models.UUIDField(default=controlplane.identity.ids.new_id, editable=False, primary_key=True, serialize=False)),
                ('handle', models.UUIDField()),
                ('parent_agent', models.UUIDField()),
                ('child_agent', models.UUIDField()),
                ('depth', models.SmallIntegerField()),
                ('amount', models.BigIntegerField()),
                ('home_amount', models.BigIntegerField(default=0)),
                ('spent_amount', models.BigIntegerField(default=0)),
                ('state', models.CharField(choices=[('open', 'Open'), ('closing', 'Closing'), ('closed', 'Closed')], default='open', max_length=8)),
                ('created_at', models.DateTimeField()),
                ('expires_at', models.DateTimeField()),
                ('closed_at', models.DateTimeField(blank=True, null=True)),
                ('budget', models.ForeignKey(db_constraint=False, on_delete=django.db.models.deletion.PROTECT, related_name='delegations', to='budgets.budget')),
                ('child', models.ForeignKey(db_constraint=False, on_delete=django.db.models.deletion.PROTECT, related_name='delegated_from', to='budgets.balance')),
                ('organization', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='identity.organization')),
                ('parent', models.ForeignKey(db_constraint=False, on_delete=django.db.models.deletion.PROTECT, related_name='children', to='budgets.balance')),
            ],
            options={
                'indexes': [models.Index(fields=['organization', '-created_at'], name='delegation_by_time'), models.Index(fields=['handle'], name='delegation_by_handle'), models.Index(condition=models.Q(('state', 'closed'), _negated=True), fields=['expires_at'], name='delegation_to_end')],
                'constraints': [models.UniqueConstraint(fields=('child',), name='delegation_one_parent'), models.CheckConstraint(condition=models.Q(('amount__gt', 0)), name='delegation_amount_positive'), models.CheckConstraint(condition=models.Q(('depth__gte', 1), ('depth__lte', 8)), name='delegation_depth_bounded'), models.CheckConstraint(condition=models.Q(('parent', models.F('child')), _negated=True), name='delegation_not_to_itself'), models.CheckConstraint(condition=models.Q(models.Q(('closed_at__isnull', True), ('state__in', ['open', 'closing'])), models.Q(('amount', django.db.models.expressions.CombinedExpression(models.F('home_amount'), '+', models.F('spent_amount'))), ('closed_at__isnull', False), ('state', 'closed')), _connector='OR'), name='delegation_closed_accounts_for_all'), models.CheckConstraint(condition=models.Q(('home_amount__gte', 0), ('spent_amount__gte', 0), ('amount__gte', django.db.models.expressions.CombinedExpression(models.F('home_amount'), '+', models.F('spent_amount')))), name='delegation_parts_within_amount')],
            },
        ),
        migrations.RunSQL(
            (HERE / "0009_delegations.sql").read_text(),
            (HERE / "0009_delegations_reverse.sql").read_text(),
        ),
    ]
