-- Turns a fresh Odoo 19 database (base, contacts, sale_management) into a realistic big one.
--   psql -X -v ON_ERROR_STOP=1 -v scale=1 -f inflate-odoo19.sql DB      scale 1 ~ 1 GB, 4 ~ 4 GB (pg_database_size)
-- FKs stay valid (they are NOT checked here for speed: session_replication_role=replica; any restore re-checks them).
\set ON_ERROR_STOP 1
\timing off
SET session_replication_role = replica;      -- superuser; skips FK triggers while generating
SET synchronous_commit = off;
SET work_mem = '256MB';
SELECT setseed(0.42);
-- 1. vocabulary and a pool of paragraphs (compressible like prose, ~3.5x with gzip)
CREATE TEMP TABLE w AS SELECT i, translate(left(md5('w'||i), 3 + (i % 9)), '0123456789', 'etaoinshrl') AS t FROM generate_series(1,4000) i;
CREATE UNIQUE INDEX ON w(i);
CREATE TEMP TABLE para AS
  SELECT p AS k, (SELECT string_agg(w.t, ' ' ORDER BY n) FROM generate_series(1, 12 + (p % 50)) n
                  JOIN w ON w.i = 1 + (abs(hashint8(p::int8*1000+n)) % (CASE WHEN n%3=0 THEN 4000 ELSE 300 END))) AS t
  FROM generate_series(1, 20000) p;
CREATE UNIQUE INDEX ON para(k);
ANALYZE w; ANALYZE para;

\set npartner '((30000*:scale)::int)'
\set nproduct '((3000*:scale)::int)'
\set norder '((40000*:scale)::int)'
\set nmove '((40000*:scale)::int)'
\set nmsg '((380000*:scale)::int)'
\set natt '((60000*:scale)::int)'

-- 2. partners
INSERT INTO res_partner (id, company_id, create_date, write_date, name, complete_name, parent_id, commercial_partner_id, country_id, lang, tz, vat, ref, type,
   street, zip, city, email, email_normalized, phone, phone_sanitized, website, comment, active, is_company, partner_share, autopost_bills, create_uid, write_uid,
   partner_latitude, partner_longitude, customer_rank, supplier_rank, credit_limit, properties, trust)
SELECT 1000+i, 1, now()-(i||' min')::interval, now(), 'Partner '||i||' '||initcap(left(p.t,14)), 'Partner '||i||' '||initcap(left(p.t,14)),
   CASE WHEN i%4=0 THEN 1000+i-1 END, CASE WHEN i%4=0 THEN 1000+i-1 ELSE 1000+i END, 1+(i%250), 'en_US', 'Europe/Paris', CASE WHEN i%3=0 THEN 'FR'||lpad(i::text,11,'0') END,
   'C'||lpad(i::text,7,'0'), 'contact', (i%300)||' '||left(p.t,24), lpad((i%99999)::text,5,'0'), initcap(left(md5(i::text),8)), 'user'||i||'@example'||(i%900)||'.com', 'user'||i||'@example'||(i%900)||'.com',
   '+33 6 '||lpad(i::text,8,'0'), '+336'||lpad(i::text,8,'0'), CASE WHEN i%5=0 THEN 'https://www.ex'||i||'.com' END, CASE WHEN i%3=0 THEN '<p>'||p.t||'</p>' END,
   true, i%4<>0, true, 'ask', 2, 2, (random()*180-90)::numeric(10,7), (random()*360-180)::numeric(10,7), i%7, i%2,
   CASE WHEN i%10=0 THEN jsonb_build_object('1', i%10000) END, CASE WHEN i%2=0 THEN jsonb_build_object('a'||(i%40), 'v'||i, 'n', i) END, '{"1": "normal"}'
FROM generate_series(1, :npartner) i JOIN para p ON p.k = 1 + (i*7919) % 20000;

-- 3. products
INSERT INTO product_template (id, sequence, uom_id, type, service_tracking, default_code, name, description_sale, list_price, volume, weight, sale_ok, purchase_ok, active, create_date, write_date, create_uid, write_uid, invoice_policy, expense_policy, service_type)
SELECT 1000+i, 1, 1, 'consu', 'no', 'SKU'||i, jsonb_build_object('en_US','Product '||i||' '||left(p.t,20),'fr_FR','Produit '||i||' '||left(p.t,20)), jsonb_build_object('en_US', p.t), (random()*1000)::numeric(12,2), 0.1, 1.5, true, true, true, now(), now(), 2, 2, 'order','no','manual'
FROM generate_series(1, :nproduct) i JOIN para p ON p.k = 1 + (i*104729) % 20000;
INSERT INTO product_product (id, product_tmpl_id, default_code, barcode, combination_indices, standard_price, active, create_date, write_date, create_uid, write_uid)
SELECT 1000+i, 1000+i, 'SKU'||i, '3'||lpad(i::text,12,'0'), '', jsonb_build_object('1',(random()*500)::numeric(12,2)), true, now(), now(), 2, 2 FROM generate_series(1, :nproduct) i;

-- 4. sales
INSERT INTO sale_order (id, company_id, partner_id, partner_invoice_id, partner_shipping_id, currency_id, user_id, team_id, create_uid, write_uid, access_token, name, state, client_order_ref, origin, invoice_status,
   note, currency_rate, amount_untaxed, amount_tax, amount_total, locked, require_signature, require_payment, create_date, date_order, write_date, prepayment_percent)
SELECT 1000+i, 1, pa, pa, pa, 1, 2, 1, 2, 2, md5(i::text), 'S'||lpad(i::text,7,'0'), (ARRAY['draft','sent','sale','sale','sale','cancel'])[1+i%6], CASE WHEN i%2=0 THEN 'PO'||i END, 'Q'||i, (ARRAY['no','to invoice','invoiced'])[1+i%3],
   CASE WHEN i%3=0 THEN '<p>'||p.t||'</p>' END, 1.0, a, round(a*0.2,2), round(a*1.2,2), false, true, false, now()-(i||' min')::interval, now()-(i||' min')::interval, now(), 1
FROM (SELECT i, 1001 + (i*31) % :npartner AS pa, ((i*37)%100000/10.0)::numeric(12,2) AS a FROM generate_series(1, :norder) i) s JOIN para p ON p.k = 1 + (s.i*15485863::bigint) % 20000;
INSERT INTO sale_order_line (id, order_id, sequence, company_id, currency_id, order_partner_id, salesman_id, product_id, product_uom_id, state, qty_delivered_method, invoice_status, analytic_distribution, name, product_uom_qty, price_unit, discount,
   price_subtotal, price_total, price_reduce_taxexcl, price_reduce_taxinc, qty_delivered, qty_invoiced, qty_to_invoice, untaxed_amount_invoiced, untaxed_amount_to_invoice, is_downpayment, create_date, write_date, create_uid, write_uid, technical_price_unit, price_tax, customer_lead)
SELECT 1000+i, 1000 + 1 + (i-1)/4, 10+i%4, 1, 1, 1001 + (((i-1)/4+1)*31) % :npartner, 2, 1001 + (i*13) % :nproduct, 1, 'sale', 'manual', 'to invoice', CASE WHEN i%5=0 THEN jsonb_build_object((1+i%50)::text, 100.0) END,
   '[SKU'||i||'] '||left(p.t, 60), 1+i%9, u, 0, u*(1+i%9), round(u*(1+i%9)*1.2,2), u, round(u*1.2,2), 0, 0, 1+i%9, 0, u*(1+i%9), false, now()-(i||' min')::interval, now(), 2, 2, u, round(u*0.2,2), 0
FROM (SELECT i, ((i*53)%10000/7.0)::numeric(12,2) AS u FROM generate_series(1, 4*:norder) i) s JOIN para p ON p.k = 1 + (s.i*32452843::bigint) % 20000;

-- 5. accounting (wide tables, many indexes)
INSERT INTO account_move (id, sequence_number, journal_id, company_id, partner_id, commercial_partner_id, currency_id, create_uid, write_uid, sequence_prefix, access_token, name, ref, state, move_type, auto_post, payment_reference, payment_state,
   invoice_partner_display_name, invoice_origin, date, invoice_date, invoice_date_due, narration, invoice_currency_rate, amount_untaxed, amount_tax, amount_total, amount_residual, amount_untaxed_signed, amount_tax_signed, amount_total_signed, amount_total_in_currency_signed, amount_residual_signed,
   always_tax_exigible, checked, posted_before, is_move_sent, create_date, write_date, team_id)
SELECT 1000+i, i, 1, 1, pa, pa, 1, 2, 2, 'INV/'||(2015+i%10)||'/', md5('m'||i), 'INV/'||(2015+i%10)||'/'||lpad(i::text,7,'0'), 'S'||lpad(i::text,7,'0'), 'posted', CASE WHEN i%4=0 THEN 'in_invoice' ELSE 'out_invoice' END, 'no', 'INV/'||i, (ARRAY['paid','not_paid','partial'])[1+i%3],
   'Partner '||i, 'S'||lpad(i::text,7,'0'), d, d, d+30, CASE WHEN i%4=0 THEN '<p>'||p.t||'</p>' END, 1, a, round(a*.2,2), round(a*1.2,2), 0, a, round(a*.2,2), round(a*1.2,2), round(a*1.2,2), 0, false, true, true, false, now()-(i||' min')::interval, now(), 1
FROM (SELECT i, 1001 + (i*31) % :npartner AS pa, ((i*37)%100000/10.0)::numeric(12,2) AS a, date '2015-01-01' + (i % 3600) AS d FROM generate_series(1, :nmove) i) s JOIN para p ON p.k = 1 + (s.i*49979687::bigint) % 20000;
INSERT INTO account_move_line (id, move_id, journal_id, company_id, company_currency_id, sequence, account_id, currency_id, partner_id, product_id, product_uom_id, create_uid, write_uid, move_name, parent_state, ref, name, matching_number, display_type, date, invoice_date, date_maturity,
   analytic_distribution, debit, credit, balance, amount_currency, tax_base_amount, amount_residual, amount_residual_currency, quantity, price_unit, price_subtotal, price_total, discount, reconciled, create_date, write_date, is_downpayment)
SELECT 1000+i, 1001+m, 1, 1, 1, 100, 1+i%50, 1, 1001 + ((m+1)*31) % :npartner, 1001 + (i*13) % :nproduct, 1, 2, 2, 'INV/'||(2015+(m+1)%10)||'/'||lpad((m+1)::text,7,'0'), 'posted', 'S'||lpad((m+1)::text,7,'0'), left(p.t, 70), CASE WHEN i%5=0 THEN 'P'||i END, CASE WHEN i%5=0 THEN 'payment_term' WHEN i%5=4 THEN 'tax' ELSE 'product' END, d, d, d+30,
   CASE WHEN i%6=0 THEN jsonb_build_object((1+i%50)::text, 100.0) END, CASE WHEN i%5=0 THEN a ELSE 0 END, CASE WHEN i%5=0 THEN 0 ELSE a END, CASE WHEN i%5=0 THEN a ELSE -a END, CASE WHEN i%5=0 THEN a ELSE -a END, 0, 0, 0, 1, a, a, round(a*1.2,2), 0, i%3<>0, now()-(i||' sec')::interval, now(), false
FROM (SELECT i, (i-1)/5 AS m, ((i*53)%10000/7.0)::numeric(12,2) AS a, date '2015-01-01' + (((i-1)/5+1) % 3600) AS d FROM generate_series(1, 5*:nmove) i) s JOIN para p ON p.k = 1 + (s.i*67867967::bigint) % 20000;

-- 6. chatter: the tables that dominate every old Odoo database
INSERT INTO mail_message (id, parent_id, res_id, record_company_id, subtype_id, author_id, create_uid, write_uid, subject, model, message_type, email_from, message_id, reply_to, body, is_internal, reply_to_force_new, email_add_signature, date, create_date, write_date)
SELECT 1000+i, CASE WHEN i%3<>0 THEN 1000 + i - i%3 + CASE WHEN i%3=0 OR i<3 THEN NULL ELSE 0 END END, 1001 + (i % (CASE WHEN i%3=0 THEN :npartner ELSE :norder END)), 1, 1+i%3, 3, 2, 2, CASE WHEN i%4=0 THEN 'Re: '||left(p1.t,40) END,
   (ARRAY['res.partner','sale.order','account.move'])[1+i%3], (ARRAY['notification','comment','email','auto_comment'])[1+i%4], '"Administrator" <admin@example.com>', '<'||(100000000000+i)||'.1795333307.'||md5(i::text)||'-openerp-'||i||'-sale.order@vm>', '"Company" <catchall@example.com>',
   CASE WHEN i%4=0 THEN '' ELSE '<div summary="o_mail_notification" style="padding:0px; margin:0px"><p>'||p1.t||'</p><p style="margin:0">'||CASE WHEN i%5=0 THEN p2.t||p3.t||p2.t ELSE p2.t END||'</p></div>' END, i%4=0, false, true, now()-(i||' sec')::interval, now()-(i||' sec')::interval, now()
FROM generate_series(1, :nmsg) i JOIN para p1 ON p1.k = 1 + (i*86028121::bigint) % 20000 JOIN para p2 ON p2.k = 1 + (i*122949823::bigint) % 20000 JOIN para p3 ON p3.k = 1 + (i*141650939::bigint) % 20000;
INSERT INTO mail_tracking_value (id, field_id, old_value_integer, new_value_integer, currency_id, mail_message_id, create_uid, write_uid, old_value_char, new_value_char, old_value_float, new_value_float, old_value_datetime, create_date, write_date)
SELECT 1000+i, f.id, i%1000, i%1001, CASE WHEN i%5=0 THEN 1 END, 1001 + (i % :nmsg), 2, 2, CASE WHEN i%2=0 THEN 'Quotation' END, CASE WHEN i%2=0 THEN 'Sales Order' END, CASE WHEN i%3=0 THEN random()*1000 END, CASE WHEN i%3=0 THEN random()*1000 END, CASE WHEN i%7=0 THEN now() END, now()-(i||' sec')::interval, now()
FROM generate_series(1, (1.5*:nmsg)::int) i JOIN (SELECT id, row_number() OVER () rn FROM ir_model_fields WHERE model IN ('sale.order','account.move') LIMIT 40) f ON f.rn = 1 + i%40;
INSERT INTO mail_notification (id, author_id, mail_message_id, res_partner_id, notification_type, notification_status, is_read, read_date)
SELECT 1000+i, 3, 1000+2*i, 1001 + (i*17) % :npartner, 'email', (ARRAY['sent','sent','sent','bounce','exception'])[1+i%5], i%3<>0, now()-(i||' sec')::interval FROM generate_series(1, :nmsg/2) i;
INSERT INTO mail_followers (id, res_id, partner_id, res_model)
SELECT 1000+i, 1001 + (i % :norder), 1001 + (i/:norder)*7919 % :npartner, 'sale.order' FROM generate_series(1, 3*:norder) i;

-- 7. attachments (metadata; files live in the filestore), indexed content is TOASTed text
INSERT INTO ir_attachment (id, res_id, company_id, file_size, create_uid, write_uid, name, res_model, type, store_fname, checksum, mimetype, index_content, public, create_date, write_date)
SELECT 100000+i, 1001 + (i % :norder), 1, (i*997)%3000000, 2, 2, 'invoice_'||i||'.pdf', 'sale.order', 'binary', left(encode(sha1,'hex'),2)||'/'||encode(sha1,'hex'), encode(sha1,'hex'), 'application/pdf',
   CASE WHEN i%6=0 THEN (SELECT string_agg(p.t, E'\n') FROM para p WHERE p.k BETWEEN 1+(i*13)%19900 AND 1+(i*13)%19900+12) ELSE 'application' END, false, now()-(i||' min')::interval, now()
FROM (SELECT i, decode(left(md5(i::text)||md5(i::text||'x'),40),'hex') AS sha1 FROM generate_series(1, :natt) i) s;
INSERT INTO message_attachment_rel (message_id, attachment_id) SELECT 1000+i*5, 100000+i FROM generate_series(1, :natt) i;

-- 8. noise tables
INSERT INTO bus_bus (id, create_uid, write_uid, channel, message, create_date, write_date) SELECT 1000+i, 2, 2, '["acme","res.partner",'||i||']', json_build_object('type','mail.record/insert','payload',p.t)::text, now(), now() FROM generate_series(1, 10000*:scale) i JOIN para p ON p.k=1+i%20000;
INSERT INTO ir_logging (id, create_uid, name, type, dbname, level, path, func, line, message, create_date) SELECT 1000+i, 2, 'odoo.addons.base', 'server', 'acme', 'INFO', 'action', 'run', '0', p.t, now() FROM generate_series(1, 20000*:scale) i JOIN para p ON p.k=1+(i*3)%20000;

-- 9. sequences past every id
DO $$ DECLARE r record; m bigint; BEGIN
 FOR r IN SELECT d.refobjid::regclass AS t, a.attname, s.oid::regclass AS s FROM pg_class s JOIN pg_depend d ON d.objid=s.oid AND d.deptype='a' AND d.classid='pg_class'::regclass AND d.refclassid='pg_class'::regclass JOIN pg_attribute a ON a.attrelid=d.refobjid AND a.attnum=d.refobjsubid WHERE s.relkind='S' LOOP
  EXECUTE format('SELECT max(%I) FROM %s', r.attname, r.t) INTO m;
  IF m IS NOT NULL THEN PERFORM setval(r.s, greatest(m, (SELECT coalesce(last_value,1) FROM pg_sequences WHERE (schemaname||'.'||sequencename)::regclass = r.s))); END IF;
 END LOOP; END $$;
DROP TABLE w; DROP TABLE para;
RESET session_replication_role;
VACUUM ANALYZE;
SELECT pg_size_pretty(pg_database_size(current_database()));
SELECT relname, n_live_tup, pg_size_pretty(pg_table_size(relid)) tbl, pg_size_pretty(pg_indexes_size(relid)) idx FROM pg_stat_user_tables ORDER BY pg_total_relation_size(relid) DESC LIMIT 14;
