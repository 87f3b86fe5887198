from pathlib import Path

import controlplane.identity.ids
import django.db.models.deletion
from django.db import migrations, models

HERE = Path(__file__).parent


class Migration(migrations.Migration):

    dependencies = [
        ('budgets', '0016_reported_usage'),
        ('identity', '0005_priority_hand_back_drain'),
    ]

    operations = [
        migrations.AddField(
            model_name='priceversion',
            name='basis',
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='budgets.priceversion'),
        ),
        migrations.AddField(
            model_name='priceversion',
            name='evidence',
            field=models.JSONField(blank=True, default=dict),
        ),
        migrations.CreateModel(
            name='PriceRule',
            fields=[
                ('id', models.UUIDField(default=controlplane.identity.ids.new_id, editable=False, primary_key=True, serialize=False)),
                ('kind', models.CharField(choices=[('alias', 'Alias'), ('discount', 'Discount')], max_length=8)),
                ('provider', models.CharField(blank=True, default='', max_length=64)),
                ('model', models.CharField(blank=True, default='', max_length=200)),
                ('match', models.CharField(choices=[('exact', 'Exact'), ('prefix', 'Prefix')], default='exact', max_length=8)),
                ('target_provider', models.CharField(blank=True, default='', max_length=64)),
                ('target_model', models.CharField(blank=True, default='', max_length=200)),
                ('off_per_mille', models.IntegerField(default=0)),
                ('valid_from', models.DateTimeField()),
                ('valid_to', models.DateTimeField(blank=True, null=True)),
                ('reason', models.CharField(blank=True, default='', max_length=500)),
                ('organization', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='identity.organization')),
            ],
        ),
        migrations.AddField(
            model_name='priceversion',
            name='rule',
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='budgets.pricerule'),
        ),
        migrations.AddConstraint(
            model_name='priceversion',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('basis__isnull', True), ('rule__isnull', True)), models.Q(('basis__isnull', False), ('own', True), ('rule__isnull', False)), _connector='OR'), name='price_of_rule_names_its_basis'),
        ),
        migrations.AddConstraint(
            model_name='pricerule',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('kind', 'discount'), ('off_per_mille__gt', 0), ('off_per_mille__lt', 1000), ('target_model', '')), models.Q(('kind', 'alias'), ('off_per_mille', 0), models.Q(('target_model', ''), _negated=True)), _connector='OR'), name='price_rule_says_one_thing'),
        ),
        migrations.AddConstraint(
            model_name='pricerule',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('model', ''), _negated=True), ('match', 'prefix'), _connector='OR'), name='price_rule_of_a_name'),
        ),
        migrations.AddConstraint(
            model_name='pricerule',
            constraint=models.CheckConstraint(condition=models.Q(('match__in', ['exact', 'prefix'])), name='price_rule_match_known'),
        ),
        migrations.AddConstraint(
            model_name='pricerule',
            constraint=models.CheckConstraint(condition=models.Q(('valid_to__isnull', True), ('valid_to__gte', models.F('valid_from')), _connector='OR'), name='price_rule_validity_in_order'),
        ),
        migrations.RunSQL(
            (HERE / "0017_price_rules.sql").read_text(),
            (HERE / "0017_price_rules_reverse.sql").read_text(),
        ),
    ]
