from pathlib import Path

import controlplane.identity.ids
import django.db.models.deletion
import enforcement.rules.policy
from django.db import migrations, models

HERE = Path(__file__).parent


class Migration(migrations.Migration):

    dependencies = [
        ('budgets', '0003_lease_of_spool_by_state'),
        ('identity', '0004_pulse'),
    ]

    operations = [
        migrations.CreateModel(
            name='BudgetOverride',
            fields=[
                ('id', models.UUIDField(default=controlplane.identity.ids.new_id, editable=False, primary_key=True, serialize=False)),
                ('value', models.CharField(max_length=200)),
                ('limit_amount', models.BigIntegerField()),
                ('created_at', models.DateTimeField()),
            ],
        ),
        migrations.RemoveConstraint(
            model_name='budget',
            name='budget_scope_kind_known',
        ),
        migrations.RemoveConstraint(
            model_name='budget',
            name='budget_unit_known',
        ),
        migrations.RemoveConstraint(
            model_name='budget',
            name='budget_per_known',
        ),
        migrations.RemoveConstraint(
            model_name='usageevent',
            name='usage_amounts_not_negative',
        ),
        migrations.AddField(
            model_name='balance',
            name='lends',
            field=models.BooleanField(default=False),
        ),
        migrations.AddField(
            model_name='budget',
            name='filters',
            field=models.JSONField(blank=True, default=dict),
        ),
        migrations.AddField(
            model_name='budget',
            name='overflow',
            field=models.CharField(choices=[('refuse', 'refuse'), ('share', 'share')], default=enforcement.rules.policy.Overflow['REFUSE'], max_length=8),
        ),
        migrations.AddField(
            model_name='budget',
            name='scope_session',
            field=models.CharField(blank=True, default='', max_length=128),
        ),
        migrations.AddField(
            model_name='usageevent',
            name='gpu_ms',
            field=models.BigIntegerField(default=0),
        ),
        migrations.AddField(
            model_name='usageevent',
            name='skill',
            field=models.CharField(blank=True, default='', max_length=200),
        ),
        migrations.AddField(
            model_name='usageevent',
            name='tool_calls',
            field=models.BigIntegerField(default=0),
        ),
        migrations.AlterField(
            model_name='budget',
            name='per',
            field=models.CharField(blank=True, default='', max_length=72),
        ),
        migrations.AlterField(
            model_name='budget',
            name='scope_kind',
            field=models.CharField(choices=[('organization', 'organization'), ('team', 'team'), ('project', 'project'), ('agent', 'agent'), ('session', 'session')], max_length=12),
        ),
        migrations.AlterField(
            model_name='budget',
            name='unit',
            field=models.CharField(choices=[('usd', 'usd'), ('tokens', 'tokens'), ('input_tokens', 'input tokens'), ('output_tokens', 'output tokens'), ('cached_tokens', 'cached tokens'), ('reasoning_tokens', 'reasoning tokens'), ('requests', 'requests'), ('gpu_ms', 'gpu ms'), ('tool_calls', 'tool calls'), ('concurrency', 'concurrency')], max_length=16),
        ),
        migrations.AddConstraint(
            model_name='balance',
            constraint=models.CheckConstraint(condition=models.Q(('lends', False), ('spent_amount', 0), _connector='OR'), name='balance_permits_never_spent'),
        ),
        migrations.AddConstraint(
            model_name='budget',
            constraint=models.CheckConstraint(condition=models.Q(('scope_kind__in', ['organization', 'team', 'project', 'agent', 'session'])), name='budget_scope_kind_known'),
        ),
        migrations.AddConstraint(
            model_name='budget',
            constraint=models.CheckConstraint(condition=models.Q(('unit__in', ['usd', 'tokens', 'input_tokens', 'output_tokens', 'cached_tokens', 'reasoning_tokens', 'requests', 'gpu_ms', 'tool_calls', 'concurrency'])), name='budget_unit_known'),
        ),
        migrations.AddConstraint(
            model_name='budget',
            constraint=models.CheckConstraint(condition=models.Q(('per__in', ['', 'team', 'project', 'agent', 'session', 'user', 'model', 'provider', 'node', 'skill']), ('per__regex', '^tag:[A-Za-z0-9_.-]{1,64}$'), _connector='OR'), name='budget_per_known'),
        ),
        migrations.AddConstraint(
            model_name='budget',
            constraint=models.CheckConstraint(condition=models.Q(('overflow__in', ['refuse', 'share'])), name='budget_overflow_known'),
        ),
        migrations.AddConstraint(
            model_name='budget',
            constraint=models.CheckConstraint(condition=models.Q(('scope_kind', 'session'), ('scope_session', ''), _connector='XOR'), name='budget_session_scope_is_named'),
        ),
        migrations.AddConstraint(
            model_name='budget',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('unit', 'concurrency'), _negated=True), models.Q(('mode', 'hard'), ('window_kind', 'lifetime')), _connector='OR'), name='budget_permits_are_lent_for_good'),
        ),
        migrations.AddConstraint(
            model_name='usageevent',
            constraint=models.CheckConstraint(condition=models.Q(('input_tokens__gte', 0), ('cached_input_tokens__gte', 0), ('cache_write_tokens__gte', 0), ('output_tokens__gte', 0), ('reasoning_tokens__gte', 0), ('charge_nanos__gte', 0), ('gpu_ms__gte', 0), ('tool_calls__gte', 0)), name='usage_amounts_not_negative'),
        ),
        migrations.AddField(
            model_name='budgetoverride',
            name='budget',
            field=models.ForeignKey(db_constraint=False, on_delete=django.db.models.deletion.PROTECT, related_name='overrides', to='budgets.budget'),
        ),
        migrations.AddField(
            model_name='budgetoverride',
            name='organization',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='identity.organization'),
        ),
        migrations.AddConstraint(
            model_name='budgetoverride',
            constraint=models.UniqueConstraint(fields=('budget', 'value'), name='override_one_for_each_value'),
        ),
        migrations.AddConstraint(
            model_name='budgetoverride',
            constraint=models.CheckConstraint(condition=models.Q(('limit_amount__gt', 0)), name='override_limit_positive'),
        ),
        migrations.AddConstraint(
            model_name='budgetoverride',
            constraint=models.CheckConstraint(condition=models.Q(('value', ''), _negated=True), name='override_of_a_value'),
        ),
        migrations.RunSQL(
            (HERE / "0004_budget_scopes.sql").read_text(),
            (HERE / "0004_budget_scopes_reverse.sql").read_text(),
        ),
    ]
