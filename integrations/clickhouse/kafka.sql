-- Lines from Kafka into sessiond.events. Not tested. clickhouse-client --multiquery < kafka.sql
CREATE TABLE IF NOT EXISTS sessiond.kafka (doc JSON)
ENGINE = Kafka
SETTINGS
    kafka_broker_list = 'kafka.example.org:9092',
    kafka_topic_list = 'sessiond.events',
    kafka_group_name = 'clickhouse',
    kafka_format = 'JSONAsObject',
    kafka_num_consumers = 4,
    kafka_handle_error_mode = 'stream';

CREATE MATERIALIZED VIEW IF NOT EXISTS sessiond.from_kafka TO sessiond.events AS
SELECT doc FROM sessiond.kafka WHERE length(_error) = 0;
