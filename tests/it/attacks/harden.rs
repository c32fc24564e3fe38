//! The second wall: what `policy harden` left open or closed too far; and opaque code, which masks
//! and rules cannot see into.

mod catalog;
mod checks;
mod opaque;
mod results;
mod roles;

#[test]
fn m02_opaque_code_does_not_reach_masked_columns() {
    opaque::opaque_code_does_not_reach_masked_columns();
}

#[test]
fn m03_opaque_code_does_not_reach_held_actions() {
    opaque::opaque_code_does_not_reach_held_actions();
}

#[test]
fn m07_a_function_that_a_session_makes_hides_none_of_the_servers() {
    opaque::a_function_that_a_session_makes_hides_none_of_the_servers();
}

#[test]
fn m13_a_masked_table_stays_where_masks_find_it() {
    opaque::a_masked_table_stays_where_masks_find_it();
}

#[test]
fn m14_a_text_that_is_not_understood_is_refused_where_columns_are_masked() {
    opaque::a_text_that_is_not_understood_is_refused_where_columns_are_masked();
}

#[test]
fn m16_rows_of_a_statement_without_returning_are_masked_whole() {
    results::rows_of_a_statement_without_returning_are_masked_whole();
}

#[test]
fn m25_rules_at_the_target_show_no_masked_values() {
    results::rules_at_the_target_show_no_masked_values();
    roles::tables_whose_rules_give_rows_are_not_written();
}

#[test]
fn m10_what_a_deferred_constraint_says_is_withheld() {
    results::what_a_deferred_constraint_says_is_withheld();
}

#[test]
fn m11_what_a_change_of_a_table_says_of_its_rows_is_withheld() {
    results::what_a_change_of_a_table_says_of_its_rows_is_withheld();
}

#[test]
fn m22_texts_of_statements_and_definitions_are_stored_without_values() {
    results::texts_of_statements_and_definitions_are_stored_without_values();
}

#[test]
fn m23_a_locked_table_does_not_stop_every_session() {
    catalog::a_locked_table_does_not_stop_every_session();
}

#[test]
fn m26_neither_foreign_servers_nor_old_rights_go_around_the_wall() {
    roles::neither_foreign_servers_nor_old_rights_go_around_the_wall();
}

#[test]
fn m27_names_alone_and_domains_work_as_rules_allow() {
    roles::names_alone_and_domains_work_as_rules_allow();
}

#[test]
fn o03_what_masks_and_rules_name_is_looked_for() {
    checks::what_masks_and_rules_name_is_looked_for();
}
